use std::{io, path::Path};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::protocol::kv::Record;

/// Records in a file. What was written survives the end of the process, however it ends.
#[derive(Debug)]
pub(super) struct Disk(Database);

/// By name and author; each as JSON.
const RECORDS: TableDefinition<'_, (&str, [u8; 32]), &[u8]> = TableDefinition::new("records");

impl Disk {
    /// Opens a file, which is made if there is none. Another process must not have it open.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let error = |error| io::Error::other(format!("cannot keep values in {}: {error}", path.display()));
        Database::create(path).map(Self).map_err(error)
    }

    /// Everything in it; what cannot be read any more is an error.
    pub(super) fn records(&self) -> io::Result<Vec<Record>> {
        let read = self.0.begin_read().map_err(io::Error::other)?;
        let table = match read.open_table(RECORDS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            other => other.map_err(io::Error::other)?,
        };
        let mut records = Vec::new();
        for entry in table.iter().map_err(io::Error::other)? {
            let (_, bytes) = entry.map_err(io::Error::other)?;
            records.push(serde_json::from_slice(bytes.value())?);
        }
        Ok(records)
    }

    /// Writes records and waits until they are on the disk: all of them, or none.
    pub(super) fn write<'a>(&self, records: impl Iterator<Item = &'a Record>) -> io::Result<()> {
        let write = self.0.begin_write().map_err(io::Error::other)?;
        {
            let mut table = write.open_table(RECORDS).map_err(io::Error::other)?;
            for record in records {
                let bytes = serde_json::to_vec(record)?;
                let name = (record.key.as_str(), *record.author.as_bytes());
                table.insert(name, bytes.as_slice()).map_err(io::Error::other)?;
            }
        }
        write.commit().map_err(io::Error::other)
    }
}
