use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    path::{Path, PathBuf},
};

use super::{
    error::SourceError,
    protocol::{Entry, EntryKind, EntryPath, PathError, Rules},
};

/// The files and folders to send, in the order in which they travel.
#[derive(Debug)]
pub(crate) struct Source {
    files: Vec<SourceFile>,
    skipped: Vec<PathBuf>,
}

/// One of them, and where it is here.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) entry: Entry,
    pub(crate) place: PathBuf,
}

impl Source {
    /// Walks over what the user named. Links are followed where the user named them, skipped inside of folders.
    pub(crate) fn collect(paths: &[PathBuf]) -> Result<Self, SourceError> {
        let mut source = Self { files: Vec::new(), skipped: Vec::new() };
        let mut names = BTreeMap::new();
        for path in paths {
            let name = name_of(path)?;
            if let Some(first) = names.insert(name.clone(), path.clone()) {
                return Err(SourceError::Twice { name, first, second: path.clone() });
            }
            let metadata = fs::metadata(path).map_err(|source| unreadable(path, source))?;
            source.add(path, &name, &metadata)?;
        }
        Ok(source)
    }

    pub(crate) fn files(&self) -> &[SourceFile] {
        &self.files
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.files.iter().map(|file| &file.entry)
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.entries().map(|entry| entry.size_bytes).sum()
    }

    /// Links, sockets and devices inside of folders, which do not travel.
    pub(crate) fn skipped(&self) -> &[PathBuf] {
        &self.skipped
    }

    fn add(&mut self, place: &Path, name: &str, metadata: &Metadata) -> Result<(), SourceError> {
        let path = EntryPath::parse(name, Rules::Unix)
            .map_err(|source| SourceError::Name { path: place.to_owned(), source })?;
        let (kind, size_bytes) = if metadata.is_dir() {
            (EntryKind::Folder, 0)
        } else if metadata.is_file() {
            (EntryKind::File { executable: is_executable(metadata) }, metadata.len())
        } else {
            return Err(SourceError::Special { path: place.to_owned() });
        };
        if self.files.len() == MAX_ENTRIES {
            return Err(SourceError::TooMany);
        }
        self.files.push(SourceFile { entry: Entry { kind, size_bytes, path }, place: place.to_owned() });
        if kind == EntryKind::Folder { self.add_inside(place, name) } else { Ok(()) }
    }

    fn add_inside(&mut self, folder: &Path, name: &str) -> Result<(), SourceError> {
        let listed = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut inside = listed.map_err(|source| unreadable(folder, source))?;
        // The same order in every attempt.
        inside.sort_by_key(fs::DirEntry::file_name);
        for item in inside {
            let place = item.path();
            let metadata = item.metadata().map_err(|source| unreadable(&place, source))?;
            if !metadata.is_dir() && !metadata.is_file() {
                self.skipped.push(place);
                continue;
            }
            let own = item.file_name();
            let own = own
                .to_str()
                .ok_or_else(|| SourceError::Name { path: place.clone(), source: PathError::NotUtf8 })?;
            if own.starts_with(EntryPath::PART_PREFIX) {
                self.skipped.push(place);
                continue;
            }
            self.add(&place, &format!("{name}/{own}"), &metadata)?;
        }
        Ok(())
    }
}

/// The last name of a path, also of `.` and `a/..`.
fn name_of(path: &Path) -> Result<String, SourceError> {
    let not_text = || SourceError::Name { path: path.to_owned(), source: PathError::NotUtf8 };
    if let Some(name) = path.file_name() {
        return name.to_str().map(str::to_owned).ok_or_else(not_text);
    }
    let whole = fs::canonicalize(path).map_err(|source| unreadable(path, source))?;
    let name = whole.file_name().ok_or_else(|| SourceError::Special { path: path.to_owned() })?;
    name.to_str().map(str::to_owned).ok_or_else(not_text)
}

fn unreadable(path: &Path, source: std::io::Error) -> SourceError {
    SourceError::Read { path: path.to_owned(), source }
}

#[cfg(unix)]
fn is_executable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    metadata.mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &Metadata) -> bool {
    false
}

/// What a receiver takes.
const MAX_ENTRIES: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_in_a_fixed_order_and_skips_links_inside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("r");
        fs::create_dir_all(root.join("b/empty")).unwrap();
        fs::write(root.join("b/x"), "12").unwrap();
        fs::write(root.join("a"), "1").unwrap();
        fs::write(root.join(".crust-part-1"), "half of something").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        let source = Source::collect(std::slice::from_ref(&root)).unwrap();
        let names: Vec<_> = source.entries().map(|entry| entry.path.as_str()).collect();
        assert_eq!(names, ["r", "r/a", "r/b", "r/b/empty", "r/b/x"]);
        assert_eq!(source.total_bytes(), 3);
        assert_eq!(source.skipped().len(), if cfg!(unix) { 2 } else { 1 });
    }

    #[test]
    fn one_name_twice_and_a_missing_file_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        for name in ["x", "d/x"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let both = [folder.path().join("x"), folder.path().join("d/x")];
        assert!(matches!(Source::collect(&both), Err(SourceError::Twice { name, .. }) if name == "x"));
        let error = Source::collect(&[folder.path().join("nothing")]).unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
    }

    #[test]
    fn a_folder_named_by_dots_travels_under_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("home/deep")).unwrap();
        let source = Source::collect(&[folder.path().join("home/deep/..")]).unwrap();
        assert_eq!(source.files()[0].entry.path.as_str(), "home");
    }
}
