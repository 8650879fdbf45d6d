use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use transport::{Identity, IdentityError};
use zeroize::Zeroizing;

/// The file in which a peer keeps its identity: PKCS#8 PEM, for its owner's eyes only.
///
/// ```
/// use crust::IdentityFile;
///
/// let folder = tempfile::tempdir()?;
/// let file = IdentityFile::new(folder.path().join("identity.pem"));
/// let made = file.load_or_create()?;
/// assert_eq!(file.load()?.public_key(), made.public_key());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct IdentityFile {
    path: PathBuf,
}

impl IdentityFile {
    /// Names the file; nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the identity.
    ///
    /// # Errors
    ///
    /// [`IdentityFileError`] when the file is missing, empty, damaged, or open to others than its owner.
    pub fn load(&self) -> Result<Identity, IdentityFileError> {
        let mut file = File::open(&self.path).map_err(|source| self.unreadable(source))?;
        self.check_mode(&file)?;
        let mut text = Zeroizing::new(String::new());
        // The limit keeps a wrong file, a device for example, from filling the memory.
        (&mut file).take(MAX_BYTES).read_to_string(&mut text).map_err(|source| self.unreadable(source))?;
        if text.trim().is_empty() {
            return Err(IdentityFileError::Empty { path: self.path.clone() });
        }
        Identity::from_pkcs8_pem(&text)
            .map_err(|source| IdentityFileError::Damaged { path: self.path.clone(), source })
    }

    /// Reads the identity, or makes a new one if there is no file. An existing file is never written to.
    ///
    /// The new file appears whole or not at all, is readable by its owner only, and is on the disk when this returns.
    /// Of two processes that make it at once, one wins and both return its key.
    ///
    /// # Errors
    ///
    /// [`IdentityFileError`] as [`IdentityFile::load`], and when the file cannot be made.
    pub fn load_or_create(&self) -> Result<Identity, IdentityFileError> {
        match self.load() {
            Err(IdentityFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let identity = Identity::generate();
        match self.create(&identity) {
            Ok(()) => Ok(identity),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.load(),
            Err(source) => Err(IdentityFileError::Create { path: self.path.clone(), source }),
        }
    }

    /// Writes beside the place, then links into it, which fails if something is there.
    fn create(&self, identity: &Identity) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        create_private_folder(folder)?;
        let draft = folder.join(format!(".{}.pem", identity.public_key()));
        let written = write_private(&draft, identity).and_then(|()| fs::hard_link(&draft, &self.path));
        let _ = fs::remove_file(&draft);
        match written {
            // Some file systems have no links.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) =>
            {
                write_private(&self.path, identity)?;
            }
            other => other?,
        }
        sync_folder(folder)
    }

    #[cfg(unix)]
    fn check_mode(&self, file: &File) -> Result<(), IdentityFileError> {
        use std::os::unix::fs::MetadataExt as _;

        let metadata = file.metadata().map_err(|source| self.unreadable(source))?;
        if metadata.is_file() && metadata.mode() & 0o077 != 0 {
            return Err(IdentityFileError::OpenToOthers {
                path: self.path.clone(),
                mode: metadata.mode() & 0o777,
            });
        }
        Ok(())
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "elsewhere there is no mode to check")]
    fn check_mode(&self, _: &File) -> Result<(), IdentityFileError> {
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> IdentityFileError {
        IdentityFileError::Read { path: self.path.clone(), source }
    }
}

fn write_private(path: &Path, identity: &Identity) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(identity.to_pkcs8_pem().as_bytes())?;
    file.sync_all()
}

fn create_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere a folder cannot be synced")]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Why there is no identity to be had from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityFileError {
    /// The file is missing or cannot be read.
    #[error("cannot read the key file {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read or change the file, so the key in it may no longer be a secret.
    #[error("the key file {path} is open to others (mode {mode:03o}): run `chmod 600 {path}`", path = .path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is nothing in the file. It is left as it is: the key may be in a backup.
    #[error("the key file {} is empty; restore it, or remove it to get a new key", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// What is in the file is no key. It is left as it is.
    #[error("the key file {} is damaged; restore it, or remove it to get a new key", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: IdentityError,
    },
    /// There was no file, and making one failed.
    #[error("cannot make the key file {}", .path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// A key file has some 120 bytes; headers and comments of other tools are allowed for.
const MAX_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(content: &str, mode: u32) -> (tempfile::TempDir, IdentityFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        fs::write(&path, content).unwrap();
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        (folder, IdentityFile::new(path))
    }

    #[test]
    fn a_new_key_is_kept_in_a_new_folder_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = IdentityFile::new(folder.path().join("deep/er/identity.pem"));
        let made = file.load_or_create().unwrap();
        assert_eq!(file.load_or_create().unwrap().public_key(), made.public_key());
        assert_eq!(fs::read_dir(file.path().parent().unwrap()).unwrap().count(), 1, "no draft stays behind");
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_key_that_others_can_read_is_refused_with_the_command_to_run() {
        let pem = Identity::from_seed([1; 32]).to_pkcs8_pem();
        let (_folder, file) = file_with(&pem, 0o640);
        let error = file.load_or_create().unwrap_err().to_string();
        assert!(error.contains(&format!("chmod 600 {}", file.path().display())), "{error}");
    }

    #[test]
    fn an_empty_or_damaged_file_is_an_error_and_stays_as_it_is() {
        for content in ["", "\n", "-----BEGIN PRIVATE KEY-----\nMC4C"] {
            let (_folder, file) = file_with(content, 0o600);
            let error = file.load_or_create().unwrap_err();
            assert!(matches!(error, IdentityFileError::Empty { .. } | IdentityFileError::Damaged { .. }));
            assert!(error.to_string().contains("identity.pem"));
            assert_eq!(fs::read_to_string(file.path()).unwrap(), content);
        }
    }

    #[test]
    fn processes_that_make_it_at_once_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = IdentityFile::new(folder.path().join("identity.pem"));
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| file.load_or_create().unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap().public_key()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }
}
