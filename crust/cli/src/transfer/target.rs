mod batch;
mod part;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use self::{batch::Batch, part::Part};
use super::{
    error::TargetError,
    protocol::{Entry, EntryKind, EntryPath, Hash},
};

/// The folder that receives. Nothing appears in it under its final name before it is whole, verified and on the disk;
/// nothing outside of it is ever touched.
#[derive(Debug)]
pub(crate) struct Target {
    root: PathBuf,
    overwrite: bool,
    /// Folders below the root that are known to be folders.
    folders: BTreeSet<String>,
    /// Files that an earlier attempt left incomplete.
    parts: BTreeMap<u32, Part>,
    /// Files that are there already, with their hash.
    wholes: BTreeMap<u32, Hash>,
    batch: Batch,
}

/// A file that is arriving.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// It was there already; only the sender's word is awaited.
    Whole(Hash),
    /// It grows under a name of its own.
    Part(Part),
}

impl Target {
    /// Takes a folder, which is made if it is not there.
    pub(crate) fn open(root: &Path, overwrite: bool) -> Result<Self, TargetError> {
        fs::create_dir_all(root).map_err(|source| TargetError::io(root, source))?;
        let root = fs::canonicalize(root).map_err(|source| TargetError::io(root, source))?;
        Ok(Self {
            root,
            overwrite,
            folders: BTreeSet::new(),
            parts: BTreeMap::new(),
            wholes: BTreeMap::new(),
            batch: Batch::default(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Looks what is there of an entry: how many bytes from its front, and their hash. Makes nothing.
    pub(crate) fn look(&mut self, index: u32, entry: &Entry) -> Result<Option<(u64, Hash)>, TargetError> {
        for ancestor in entry.path.ancestors() {
            if !self.is_folder(ancestor)? {
                return Ok(None);
            }
        }
        let place = self.place(&entry.path);
        let found = kind_of(&place)?;
        if entry.kind == EntryKind::Folder {
            return match found {
                Kind::Nothing | Kind::Folder => Ok(None),
                Kind::File(_) => Err(TargetError::InTheWay { path: place }),
            };
        }
        match found {
            Kind::Folder => Err(TargetError::InTheWay { path: place }),
            Kind::File(_) if self.overwrite => Ok(None),
            Kind::File(length) if length != entry.size_bytes => Err(TargetError::Exists { path: place }),
            Kind::File(length) => {
                let hash = part::hash_file(&place)?;
                self.wholes.insert(index, hash);
                Ok(Some((length, hash)))
            }
            Kind::Nothing => {
                let Some(part) = Part::resume(&place, entry)? else { return Ok(None) };
                let have = (part.length_bytes(), part.hash());
                self.parts.insert(index, part);
                Ok(Some(have))
            }
        }
    }

    /// Makes a folder and those it lies in.
    pub(crate) fn make_folder(&mut self, path: &EntryPath) -> Result<(), TargetError> {
        for ancestor in path.ancestors().chain([path.as_str()]) {
            if !self.is_folder(ancestor)? {
                let place = self.root.join(ancestor);
                fs::create_dir(&place).map_err(|source| TargetError::io(&place, source))?;
                self.folders.insert(ancestor.to_owned());
            }
        }
        Ok(())
    }

    /// Begins a file, or goes on with it from `offset`.
    pub(crate) fn begin(&mut self, index: u32, entry: &Entry, offset: u64) -> Result<Incoming, TargetError> {
        let place = self.place(&entry.path);
        if let Some(hash) = self.wholes.remove(&index) {
            // The sender compared what we have: from another byte on than the end means that it differs.
            let same = offset == entry.size_bytes;
            return if same { Ok(Incoming::Whole(hash)) } else { Err(TargetError::Exists { path: place }) };
        }
        if let Some((parent, _)) = entry.path.as_str().rsplit_once('/') {
            let parent = EntryPath::parse(parent, super::protocol::Rules::here())
                .map_err(|_| TargetError::InTheWay { path: place.clone() })?;
            self.make_folder(&parent)?;
        }
        match self.parts.remove(&index) {
            Some(part) if part.length_bytes() == offset => Ok(Incoming::Part(part)),
            Some(part) => part.restart().map(Incoming::Part),
            None => Part::create(&place, entry).map(Incoming::Part),
        }
    }

    /// Checks a complete file and gives it its name, now or together with others.
    pub(crate) fn finish(
        &mut self,
        entry: &Entry,
        incoming: Incoming,
        hash: Hash,
    ) -> Result<(), TargetError> {
        let place = self.place(&entry.path);
        match incoming {
            Incoming::Whole(ours) if ours == hash => Ok(()),
            Incoming::Whole(_) => Err(TargetError::Exists { path: place }),
            Incoming::Part(part) if part.hash() == hash => {
                part.set_executable(entry.kind == EntryKind::File { executable: true })?;
                self.batch.push(part);
                if self.batch.is_full() { self.flush() } else { Ok(()) }
            }
            Incoming::Part(part) => {
                part.discard()?;
                Err(TargetError::Mismatch { path: place })
            }
        }
    }

    /// Puts what is complete on the disk and under its final name.
    pub(crate) fn flush(&mut self) -> Result<(), TargetError> {
        self.batch.flush(self.overwrite)
    }

    fn place(&self, path: &EntryPath) -> PathBuf {
        self.root.join(path.as_str())
    }

    /// Whether a folder is there; a link or a file in its place is an error.
    fn is_folder(&mut self, path: &str) -> Result<bool, TargetError> {
        if self.folders.contains(path) {
            return Ok(true);
        }
        let place = self.root.join(path);
        match kind_of(&place)? {
            Kind::Nothing => Ok(false),
            Kind::File(_) => Err(TargetError::InTheWay { path: place }),
            Kind::Folder => {
                self.folders.insert(path.to_owned());
                Ok(true)
            }
        }
    }
}

enum Kind {
    Nothing,
    Folder,
    /// With its length.
    File(u64),
}

/// What is at a place, without following a link there.
fn kind_of(place: &Path) -> Result<Kind, TargetError> {
    let metadata = match fs::symlink_metadata(place) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kind::Nothing),
        Err(source) => return Err(TargetError::io(place, source)),
    };
    let path = || place.to_owned();
    match metadata.file_type() {
        kind if kind.is_symlink() => Err(TargetError::Link { path: path() }),
        kind if kind.is_dir() => Ok(Kind::Folder),
        kind if kind.is_file() => Ok(Kind::File(metadata.len())),
        _ => Err(TargetError::InTheWay { path: path() }),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::protocol::Rules, *};

    fn entry(path: &str, content: &[u8]) -> Entry {
        Entry {
            kind: EntryKind::File { executable: false },
            size_bytes: content.len() as u64,
            path: EntryPath::parse(path, Rules::Unix).unwrap(),
        }
    }

    fn hash(content: &[u8]) -> Hash {
        *blake3::hash(content).as_bytes()
    }

    fn receive(target: &mut Target, path: &str, content: &[u8]) -> Result<(), TargetError> {
        let entry = entry(path, content);
        let have = target.look(0, &entry)?.map_or(0, |(bytes, _)| bytes);
        let mut incoming = target.begin(0, &entry, have)?;
        if let Incoming::Part(part) = &mut incoming {
            part.write(&content[usize::try_from(have).unwrap()..])?;
        }
        target.finish(&entry, incoming, hash(content))
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut target = Target::open(&folder.path().join("new"), false).unwrap();
        receive(&mut target, "a/b/c", b"hello").unwrap();
        assert!(!target.root().join("a/b/c").exists());
        target.flush().unwrap();
        assert_eq!(fs::read(target.root().join("a/b/c")).unwrap(), b"hello");
        assert_eq!(fs::read_dir(target.root().join("a/b")).unwrap().count(), 1, "no part stays behind");
    }

    #[test]
    fn goes_on_where_an_earlier_attempt_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = entry("f", b"hello world");
        let mut first = Target::open(folder.path(), false).unwrap();
        let Incoming::Part(mut part) = first.begin(0, &wanted, 0).unwrap() else { panic!() };
        part.write(b"hello").unwrap();
        drop((part, first));
        let mut second = Target::open(folder.path(), false).unwrap();
        assert_eq!(second.look(0, &wanted).unwrap(), Some((5, hash(b"hello"))));
        drop(second);
        let mut third = Target::open(folder.path(), false).unwrap();
        receive(&mut third, "f", b"hello world").unwrap();
        third.flush().unwrap();
        assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"hello world");
    }

    #[test]
    fn a_part_of_something_else_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = entry("f", b"hello world");
        let mut target = Target::open(folder.path(), false).unwrap();
        let Incoming::Part(mut part) = target.begin(0, &wanted, 0).unwrap() else { panic!() };
        part.write(b"other").unwrap();
        drop(part);
        target.look(0, &wanted).unwrap();
        let Incoming::Part(mut part) = target.begin(0, &wanted, 0).unwrap() else { panic!() };
        part.write(b"hello world").unwrap();
        target.finish(&wanted, Incoming::Part(part), hash(b"hello world")).unwrap();
        target.flush().unwrap();
        assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"hello world");
    }

    #[test]
    fn damaged_bytes_get_no_name_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut target = Target::open(folder.path(), false).unwrap();
        let wanted = entry("f", b"hello");
        let Incoming::Part(mut part) = target.begin(0, &wanted, 0).unwrap() else { panic!() };
        part.write(b"hallo").unwrap();
        let error = target.finish(&wanted, Incoming::Part(part), hash(b"hello")).unwrap_err();
        assert!(matches!(error, TargetError::Mismatch { .. }));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_there_stays_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), "mine!").unwrap();
        let mut target = Target::open(folder.path(), false).unwrap();
        assert!(matches!(receive(&mut target, "f", b"longer"), Err(TargetError::Exists { .. })));
        let same_length = entry("f", b"yours");
        assert_eq!(target.look(0, &same_length).unwrap(), Some((5, hash(b"mine!"))));
        assert!(matches!(target.begin(0, &same_length, 0), Err(TargetError::Exists { .. })));
        receive(&mut target, "f", b"mine!").unwrap();
        assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"mine!");
        let mut bold = Target::open(folder.path(), true).unwrap();
        receive(&mut bold, "f", b"longer").unwrap();
        bold.flush().unwrap();
        assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"longer");
    }

    #[test]
    #[cfg(unix)]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("d")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("x"), folder.path().join("f")).unwrap();
        let mut target = Target::open(folder.path(), true).unwrap();
        for path in ["d/a", "d/a/b", "f"] {
            assert!(matches!(receive(&mut target, path, b"1"), Err(TargetError::Link { .. })), "{path}");
        }
        let path = EntryPath::parse("d/new", Rules::Unix).unwrap();
        assert!(matches!(target.make_folder(&path), Err(TargetError::Link { .. })));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_in_place_of_a_file_is_in_the_way_and_so_is_the_opposite() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(folder.path().join("f"), "").unwrap();
        let mut target = Target::open(folder.path(), false).unwrap();
        for path in ["d", "f/x"] {
            assert!(matches!(receive(&mut target, path, b"1"), Err(TargetError::InTheWay { .. })), "{path}");
        }
    }

    #[test]
    fn two_processes_do_not_write_one_part() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = Target::open(folder.path(), false).unwrap();
        let mut two = Target::open(folder.path(), false).unwrap();
        let wanted = entry("f", b"hello");
        let _held = one.begin(0, &wanted, 0).unwrap();
        assert!(matches!(two.look(0, &wanted), Err(TargetError::Busy { .. })));
        assert!(matches!(two.begin(0, &wanted, 0), Err(TargetError::Busy { .. })));
    }

    #[test]
    #[cfg(unix)]
    fn whether_a_file_may_be_run_is_kept() {
        use std::os::unix::fs::MetadataExt as _;

        let folder = tempfile::tempdir().unwrap();
        let mut target = Target::open(folder.path(), false).unwrap();
        for (name, executable) in [("x", true), ("y", false)] {
            let wanted = Entry { kind: EntryKind::File { executable }, ..entry(name, b"") };
            let incoming = target.begin(0, &wanted, 0).unwrap();
            target.finish(&wanted, incoming, hash(b"")).unwrap();
            target.flush().unwrap();
            let mode = fs::metadata(folder.path().join(name)).unwrap().mode();
            assert_eq!(mode & 0o100 != 0, executable, "{name}");
            assert_eq!(mode & 0o7000, 0, "nothing special");
        }
    }
}
