use std::{collections::BTreeSet, path::Path, thread};

use super::{super::error::TargetError, part::Part};

/// Files that are whole but not yet on the disk. A disk takes many together in little more than the time of one, which
/// is what makes thousands of small files bearable.
#[derive(Debug, Default)]
pub(super) struct Batch {
    parts: Vec<Part>,
    bytes: u64,
}

impl Batch {
    pub(super) fn push(&mut self, part: Part) {
        self.bytes += part.length_bytes();
        self.parts.push(part);
    }

    pub(super) fn is_full(&self) -> bool {
        self.parts.len() >= MAX_PARTS || self.bytes >= MAX_BYTES
    }

    /// Contents first, then names, then the folders that hold the names.
    pub(super) fn flush(&mut self, overwrite: bool) -> Result<(), TargetError> {
        let parts = std::mem::take(&mut self.parts);
        self.bytes = 0;
        sync_all(&parts)?;
        let mut folders = BTreeSet::new();
        for part in parts {
            folders.insert(part.publish(overwrite)?);
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))
    }
}

fn sync_all(parts: &[Part]) -> Result<(), TargetError> {
    let share = parts.len().div_ceil(SYNC_THREADS).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> =
            parts.chunks(share).map(|share| scope.spawn(|| share.iter().try_for_each(Part::sync))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("syncing does not panic"))
    })
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), TargetError> {
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| TargetError::io(folder, source))
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere a folder cannot be synced")]
fn sync_folder(_: &Path) -> Result<(), TargetError> {
    Ok(())
}

/// Each holds a file open; systems allow 256 at least.
const MAX_PARTS: usize = 64;
/// Much more would stand in the disk's queue for seconds and not show as progress.
const MAX_BYTES: u64 = 64 << 20;
/// Enough for the disk's journal to take several files at a time.
const SYNC_THREADS: usize = 8;
