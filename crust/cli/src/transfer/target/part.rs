use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use super::super::{
    error::TargetError,
    protocol::{Entry, EntryPath, Hash},
};

/// A file that is not complete yet, in the folder where it belongs but under a name of its own, locked.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    path: PathBuf,
    place: PathBuf,
    hasher: Box<blake3::Hasher>,
    length_bytes: u64,
}

impl Part {
    pub(super) fn create(place: &Path, entry: &Entry) -> Result<Self, TargetError> {
        let path = part_path(place, entry);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| TargetError::io(place, source))?;
        Self::locked(file, path, place)?.restart()
    }

    /// What an earlier attempt left, if it left anything of use.
    pub(super) fn resume(place: &Path, entry: &Entry) -> Result<Option<Self>, TargetError> {
        let path = part_path(place, entry);
        if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(None);
        }
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let mut part = Self::locked(file.map_err(|source| TargetError::io(place, source))?, path, place)?;
        part.length_bytes =
            hash_into(&mut part.hasher, &part.file).map_err(|source| TargetError::io(place, source))?;
        if part.length_bytes > entry.size_bytes {
            return part.restart().map(Some);
        }
        Ok(Some(part))
    }

    fn locked(file: File, path: PathBuf, place: &Path) -> Result<Self, TargetError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TargetError::Busy { path: place.to_owned() }),
            // Some file systems know no locks; two receivers at once then end in a hash that does not match.
            Err(TryLockError::Error(_)) => {}
        }
        Ok(Self { file, path, place: place.to_owned(), hasher: Box::default(), length_bytes: 0 })
    }

    /// Throws away what is there.
    pub(super) fn restart(mut self) -> Result<Self, TargetError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(|source| TargetError::io(&self.place, source))?;
        self.hasher.reset();
        self.length_bytes = 0;
        Ok(self)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), TargetError> {
        self.file.write_all(bytes).map_err(|source| TargetError::io(&self.place, source))?;
        self.hasher.update(bytes);
        self.length_bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    pub(super) fn hash(&self) -> Hash {
        *self.hasher.finalize().as_bytes()
    }

    /// Lets whoever may read the file run it, if the sender's owner could.
    #[cfg(unix)]
    pub(super) fn set_executable(&self, executable: bool) -> Result<(), TargetError> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

        if !executable {
            return Ok(());
        }
        self.file
            .metadata()
            .map(|metadata| metadata.mode() & 0o666)
            .and_then(|mode| {
                self.file.set_permissions(fs::Permissions::from_mode(mode | (mode & 0o444) >> 2))
            })
            .map_err(|source| TargetError::io(&self.place, source))
    }

    #[cfg(not(unix))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "elsewhere files need no permission to run"
    )]
    pub(super) fn set_executable(&self, _: bool) -> Result<(), TargetError> {
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), TargetError> {
        self.file.sync_all().map_err(|source| TargetError::io(&self.place, source))
    }

    /// Gives the file its final name. Gives back the folder that it is in.
    pub(super) fn publish(self, overwrite: bool) -> Result<PathBuf, TargetError> {
        if !overwrite && fs::symlink_metadata(&self.place).is_ok() {
            return Err(TargetError::Exists { path: self.place });
        }
        fs::rename(&self.path, &self.place).map_err(|source| TargetError::io(&self.place, source))?;
        Ok(self.place.parent().map_or_else(PathBuf::new, Path::to_owned))
    }

    pub(super) fn discard(self) -> Result<(), TargetError> {
        fs::remove_file(&self.path).map_err(|source| TargetError::io(&self.path, source))
    }
}

pub(super) fn hash_file(path: &Path) -> Result<Hash, TargetError> {
    let mut hasher = blake3::Hasher::new();
    File::open(path)
        .and_then(|file| hash_into(&mut hasher, &file))
        .map_err(|source| TargetError::io(path, source))?;
    Ok(*hasher.finalize().as_bytes())
}

fn hash_into(hasher: &mut blake3::Hasher, mut file: &File) -> io::Result<u64> {
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(total),
            length => {
                hasher.update(&buffer[..length]);
                total += length as u64;
            }
        }
    }
}

/// Made from name and size, so that another attempt finds it and an offer of another size does not; of a fixed length,
/// since the name itself may be as long as the file system takes.
fn part_path(place: &Path, entry: &Entry) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entry.size_bytes.to_be_bytes()).update(entry.path.as_str().as_bytes());
    let hash = hasher.finalize().to_hex();
    place.with_file_name(format!("{}{}", EntryPath::PART_PREFIX, &hash[..PART_HEX]))
}

/// Reading in larger pieces is no faster.
const HASH_BUFFER_BYTES: usize = 128 << 10;
/// 128 bits: no two files of one transfer share a part.
const PART_HEX: usize = 32;
