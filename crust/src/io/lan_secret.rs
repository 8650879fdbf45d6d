//! The file with the secret of a private group.

use std::{fs::File, io::Read as _, path::Path};

use beacon::GroupSecret;
use zeroize::Zeroizing;

use crate::StartError;

pub(crate) fn read(path: &Path) -> Result<GroupSecret, StartError> {
    let failed = |source| StartError::LanSecret { path: path.to_owned(), source };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_BYTES as u64).read_to_end(&mut bytes).map_err(failed)?;
    GroupSecret::from_material(&bytes).map_err(|error| failed(std::io::Error::other(error)))
}

/// More adds nothing to a secret of 32 bytes.
const MAX_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_files_give_equal_secrets_and_what_is_no_secret_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let (one, same) = (file("one", &[1; 32]), file("same", &[1; 32]));
        assert_eq!(read(&one).unwrap(), read(&same).unwrap());
        assert_ne!(read(&one).unwrap(), read(&file("other", &[2; 32])).unwrap());
        for bad in [file("short", b"password"), folder.path().join("missing"), folder.path().to_owned()] {
            let error = read(&bad).unwrap_err().to_string();
            assert!(error.contains(bad.to_str().unwrap()), "{error}");
        }
    }
}
