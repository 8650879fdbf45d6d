use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    marker::PhantomData,
    path::PathBuf,
};

use crate::protocol::kept::{CacheFlaw, Kept};

/// A file such as that of the endpoint cache. Several processes may use one: what each of them writes holds what the others wrote, and
/// nobody ever reads half a file.
#[derive(Debug)]
pub(crate) struct CacheFile<T> {
    path: PathBuf,
    kept: PhantomData<fn(T) -> T>,
}

impl<T: Kept> CacheFile<T> {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kept: PhantomData }
    }

    /// Reads the file. One that is not there is empty.
    pub(crate) fn read(&self) -> Result<T, CacheFileError> {
        let error = |source| CacheFileError::Read { path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(T::default()),
            Err(source) => return Err(error(source)),
        };
        let mut bytes = Vec::new();
        let most = u64::try_from(T::MAX_BYTES + 1).expect("some sixty kilobytes");
        file.take(most).read_to_end(&mut bytes).map_err(error)?;
        T::decode(&bytes).map_err(|flaw| CacheFileError::Flaw { path: self.path.clone(), flaw })
    }

    /// Writes what `cache` and the file hold together, but for what `change` takes out; gives what was written.
    ///
    /// A damaged file is replaced. One of another version is left alone: it is somebody's who knows more.
    pub(crate) fn update(
        &self,
        now: u64,
        cache: &T,
        change: impl FnOnce(&mut T),
    ) -> Result<T, CacheFileError> {
        let error = |source| CacheFileError::Write { path: self.path.clone(), source };
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(error)?;
        }
        // Held until the end of this call. Readers do not need it, as files are replaced whole.
        let _lock = self.lock().map_err(error)?;
        let mut whole = match self.read() {
            Ok(there) => there,
            Err(CacheFileError::Flaw { flaw: CacheFlaw::Damaged, .. }) => T::default(),
            Err(error) => return Err(error),
        };
        whole.merge(now, cache);
        change(&mut whole);
        self.replace(&whole.encode()).map_err(error)?;
        Ok(whole)
    }

    fn lock(&self) -> io::Result<File> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.beside("lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// The name is given to a file that is whole already.
    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.beside("new");
        let written = File::create(&new).and_then(|mut file| file.write_all(bytes));
        // Not synced: a file that a power cut leaves empty is one that is damaged, and only a cache.
        let replaced = written.and_then(|()| fs::rename(&new, &self.path));
        if replaced.is_err() {
            let _ = fs::remove_file(&new);
        }
        replaced
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(ending);
        self.path.with_file_name(name)
    }

    #[cfg(test)]
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// Why the endpoint cache is not kept on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheFileError {
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: {flaw}", .path.display())]
    Flaw { path: PathBuf, flaw: CacheFlaw },
}

#[cfg(test)]
mod tests {
    use std::{fmt, thread};

    use transport::{Endpoint, PublicKey, Scheme};

    use super::*;
    use crate::protocol::{
        cache::Cache,
        network_memory::{Met, NetworkId, NetworkMemory, Way},
    };

    const NOW: u64 = 1_700_000_000;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new(Scheme::Tcp, ([127, 0, 0, 1], port).into(), PublicKey::from_bytes([1; 32]))
    }

    fn with(port: u16) -> Cache {
        let mut cache = Cache::default();
        cache.record(NOW, endpoint(port));
        cache
    }

    #[test]
    fn what_is_written_is_read_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = CacheFile::<Cache>::new(folder.path().join("a/b/endpoints"));
        assert_eq!(file.read().unwrap(), Cache::default());
        file.update(NOW, &with(1), |_| ()).unwrap();
        let whole = file.update(NOW, &with(2), |_| ()).unwrap();
        assert_eq!(CacheFile::<Cache>::new(file.path()).read().unwrap(), whole);
        assert_eq!(whole.endpoints().count(), 2);
        let less = file
            .update(NOW, &Cache::default(), |cache| {
                cache.remove(&endpoint(1));
            })
            .unwrap();
        assert_eq!(less.endpoints().collect::<Vec<_>>(), [endpoint(2)]);
    }

    #[test]
    fn processes_that_write_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints");
        thread::scope(|scope| {
            for port in 1..=8 {
                let path = &path;
                scope.spawn(move || CacheFile::<Cache>::new(path).update(NOW, &with(port), |_| ()).unwrap());
            }
        });
        assert_eq!(CacheFile::<Cache>::new(&path).read().unwrap().endpoints().count(), 8);
    }

    fn network_memory() -> NetworkMemory {
        let mut memory = NetworkMemory::default();
        let network = NetworkId::of(["192.168.1.7".parse().unwrap()]).unwrap();
        let met = Met { way: Way::Punched, scheme: Scheme::Quic, took: 412, udp_silent: false };
        memory.record(NOW, network, PublicKey::from_bytes([1; 32]), met);
        memory
    }

    /// What is damaged is replaced; what another version wrote, earlier or later, is left alone.
    fn outlives_strange_files<T: Kept + PartialEq + fmt::Debug>(name: &[u8; 8], kept: &T) {
        let folder = tempfile::tempdir().unwrap();
        let file = CacheFile::<T>::new(folder.path().join("file"));
        let whole = kept.encode();
        let truncated = (0..whole.len()).map(|length| &whole[..length]);
        for damage in truncated.chain([&[0xff; 100][..], &[b'x'; 100_000], &[&whole[..], b"x"].concat()]) {
            fs::write(file.path(), damage).unwrap();
            assert!(matches!(file.read(), Err(CacheFileError::Flaw { flaw: CacheFlaw::Damaged, .. })));
            file.update(NOW, kept, |_| ()).unwrap();
            assert_eq!(file.read().unwrap(), *kept);
        }
        for version in [0, 2, 255] {
            let strange = [&name[..], &[version], b"what nobody knows any more, or yet"].concat();
            fs::write(file.path(), &strange).unwrap();
            assert!(file.read().is_err());
            let error = file.update(NOW, kept, |_| ()).unwrap_err();
            assert!(error.to_string().contains(&format!("version {version}")), "{error}");
            assert_eq!(fs::read(file.path()).unwrap(), strange);
        }
    }

    #[test]
    fn a_damaged_file_is_replaced_and_one_of_another_version_is_left_alone() {
        outlives_strange_files(b"crustend", &with(1));
        outlives_strange_files(b"crustnet", &network_memory());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        fs::write(&blocked, "").unwrap();
        let file = CacheFile::<Cache>::new(blocked.join("endpoints"));
        let error = file.update(NOW, &with(1), |_| ()).unwrap_err();
        assert!(error.to_string().contains("endpoints"), "{error}");
        assert!(file.read().is_err());
    }

    #[cfg(unix)]
    #[test]
    fn in_a_folder_for_reading_only_what_is_there_is_read_and_stays() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let file = CacheFile::<Cache>::new(folder.path().join("endpoints"));
        file.update(NOW, &with(1), |_| ()).unwrap();
        fs::remove_file(file.beside("lock")).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let updated = file.update(NOW, &with(2), |_| ());
        assert!(file.read().unwrap().endpoints().any(|known| known == endpoint(1)));
        // The superuser may write anywhere but into what is no disk.
        if updated.is_ok() && cfg!(target_os = "linux") {
            let nowhere = CacheFile::<Cache>::new("/sys/kernel/crust-endpoints");
            assert!(matches!(nowhere.update(NOW, &with(2), |_| ()), Err(CacheFileError::Write { .. })));
            assert_eq!(nowhere.read().unwrap(), Cache::default());
        } else {
            assert!(matches!(updated, Err(CacheFileError::Write { .. })));
            assert_eq!(file.read().unwrap(), with(1));
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(file.update(NOW, &with(2), |_| ()).is_ok(), "and later it may do");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_and_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = CacheFile::<Cache>::new(folder.path().join("endpoints"));
        file.update(NOW, &with(1), |_| ()).unwrap();
        // What every write to is answered with "no space left on device".
        std::os::unix::fs::symlink("/dev/full", folder.path().join("endpoints.new")).unwrap();
        assert!(matches!(file.update(NOW, &with(2), |_| ()), Err(CacheFileError::Write { .. })));
        assert_eq!(file.read().unwrap(), with(1));
        assert!(file.update(NOW, &with(2), |_| ()).is_ok(), "and the next time it may do");
    }
}
