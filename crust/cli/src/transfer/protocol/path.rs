use std::fmt;

/// The name of a file or folder inside what is sent: parts separated by `/`, none of which leads out of the folder
/// that receives it.
///
/// ```
/// use crust_cli::transfer::{EntryPath, Rules};
///
/// assert!(EntryPath::parse("photos/sea.jpg", Rules::Unix).is_ok());
/// assert!(EntryPath::parse("../.profile", Rules::Unix).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryPath(String);

/// Whose names are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Everything that is harmless anywhere but for the rules of Windows.
    Unix,
    /// Also refuses what Windows reads in its own way: device names, streams, dots and blanks at the end.
    Windows,
}

impl Rules {
    /// The rules of the system that this program runs on.
    #[must_use]
    pub const fn here() -> Self {
        if cfg!(windows) { Self::Windows } else { Self::Unix }
    }
}

impl EntryPath {
    /// The longest path, in bytes.
    pub const MAX_BYTES: usize = 4_096;

    /// What files that are still incomplete are called; nobody may send such a name.
    pub const PART_PREFIX: &str = ".crust-part-";

    /// Takes a text as a path.
    ///
    /// # Errors
    ///
    /// [`PathError`] when it is not a path downwards, or a name in it is not allowed.
    pub fn parse(text: &str, rules: Rules) -> Result<Self, PathError> {
        if text.len() > Self::MAX_BYTES {
            return Err(PathError::TooLong { length: text.len() });
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute { path: shown(text) });
        }
        if text.split('/').count() > MAX_DEPTH {
            return Err(PathError::TooDeep { path: shown(text) });
        }
        for name in text.split('/') {
            check_name(name, rules).map_err(|why| why.error(text))?;
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the outermost folder to the entry itself.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The folders that it lies in, the outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(end, _)| &self.0[..end])
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

enum Why {
    Climbs,
    Character,
    Reserved,
    TooLong,
}

impl Why {
    fn error(self, text: &str) -> PathError {
        let path = shown(text);
        match self {
            Self::Climbs => PathError::Climbs { path },
            Self::Character => PathError::Character { path },
            Self::Reserved => PathError::Reserved { path },
            Self::TooLong => PathError::NameTooLong { path },
        }
    }
}

fn check_name(name: &str, rules: Rules) -> Result<(), Why> {
    if matches!(name, "" | "." | "..") {
        return Err(Why::Climbs);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Why::TooLong);
    }
    if name.chars().any(|c| c.is_control() || c == '\\') || is_drive(name) {
        return Err(Why::Character);
    }
    if name.starts_with(EntryPath::PART_PREFIX) {
        return Err(Why::Reserved);
    }
    if rules == Rules::Windows {
        check_windows(name)?;
    }
    Ok(())
}

/// `C:` and `C:name` lead to a drive on Windows.
fn is_drive(name: &str) -> bool {
    matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

fn check_windows(name: &str) -> Result<(), Why> {
    if name.chars().any(|c| "<>:\"|?*".contains(c)) || name.ends_with(['.', ' ']) {
        return Err(Why::Character);
    }
    // A device is a device with any extension, and with blanks before it: `NUL.txt`, `NUL .txt`.
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    let numbered = |device: &str| {
        stem.strip_prefix(device).is_some_and(|number| {
            matches!(number, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
        })
    };
    let plain = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$");
    if plain || numbered("COM") || numbered("LPT") { Err(Why::Reserved) } else { Ok(()) }
}

/// A name from a stranger, fit for a terminal: cut, and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It begins at the root.
    #[error("the name `{path}` is absolute and would leave the target folder")]
    Absolute {
        /// The name, fit to be shown.
        path: String,
    },
    /// It has a part `..`, `.` or an empty one.
    #[error("the name `{path}` climbs out of the target folder")]
    Climbs {
        /// The name, fit to be shown.
        path: String,
    },
    /// It has a character that some system reads in its own way.
    #[error("the name `{path}` has a control character, a backslash or a drive letter")]
    Character {
        /// The name, fit to be shown.
        path: String,
    },
    /// It stands for something else than a file.
    #[error("the name `{path}` is reserved")]
    Reserved {
        /// The name, fit to be shown.
        path: String,
    },
    /// One part is longer than file systems take.
    #[error("a part of the name `{path}` has more than {MAX_NAME_BYTES} bytes")]
    NameTooLong {
        /// The name, fit to be shown.
        path: String,
    },
    /// The whole is longer than systems take.
    #[error("a name of {length} bytes, at most {} are taken", EntryPath::MAX_BYTES)]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// More folders in each other than anyone means.
    #[error("the name `{path}` has more than {MAX_DEPTH} folders in each other")]
    TooDeep {
        /// The name, fit to be shown.
        path: String,
    },
    /// It is not text.
    #[error("a name is not UTF-8")]
    NotUtf8,
}

/// What ext4, APFS and NTFS take.
const MAX_NAME_BYTES: usize = 255;
/// Each folder is looked at for each file in it; nobody's tree is deeper.
const MAX_DEPTH: usize = 128;
const SHOWN_CHARS: usize = 120;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unix(text: &str) -> Result<EntryPath, PathError> {
        EntryPath::parse(text, Rules::Unix)
    }

    #[test]
    fn takes_names_that_people_use() {
        for name in
            ["a", "a/b/c.txt", "12:30 notes", ".hidden", "...", "a..b", "aux.c", "日本/語", "a b", "-rf"]
        {
            assert_eq!(unix(name).unwrap().as_str(), name);
        }
        assert_eq!(unix("a/b/c").unwrap().ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
    }

    #[test]
    fn refuses_whatever_leaves_the_folder() {
        assert!(matches!(unix("/etc/passwd"), Err(PathError::Absolute { .. })));
        for name in ["..", "../a", "a/../b", "a/..", ".", "a/./b", "", "a//b", "a/"] {
            assert!(matches!(unix(name), Err(PathError::Climbs { .. })), "{name}");
        }
        for name in ["a\0b", "a\nb", "..\\a", "\\\\server\\share", "C:a", "c:", "x/D:/y", "\x1b[2J"] {
            assert!(matches!(unix(name), Err(PathError::Character { .. })), "{name}");
        }
    }

    #[test]
    fn refuses_what_is_reserved_or_too_long() {
        assert!(matches!(unix(".crust-part-0"), Err(PathError::Reserved { .. })));
        assert!(matches!(unix(&"a".repeat(256)), Err(PathError::NameTooLong { .. })));
        assert!(unix(&"a".repeat(255)).is_ok());
        assert!(matches!(unix(&"a/".repeat(2_500)), Err(PathError::TooLong { length: 5_000 })));
        assert!(matches!(unix(&format!("{}a", "a/".repeat(128))), Err(PathError::TooDeep { .. })));
    }

    #[test]
    fn windows_has_names_of_its_own() {
        for name in ["NUL", "nul.txt", "a/con", "COM1", "lpt9.log", "com¹", "CONIN$", "aux .c"] {
            let parsed = EntryPath::parse(name, Rules::Windows);
            assert!(matches!(parsed, Err(PathError::Reserved { .. })), "{name}");
        }
        for name in ["a:b", "a.", "a ", "a?", "file::$DATA"] {
            let parsed = EntryPath::parse(name, Rules::Windows);
            assert!(matches!(parsed, Err(PathError::Character { .. })), "{name}");
        }
        assert!(EntryPath::parse("comet/nullable.rs", Rules::Windows).is_ok());
    }

    #[test]
    fn a_refused_name_is_shown_without_its_control_characters() {
        assert!(!unix("\x1b]0;owned\x07").unwrap_err().to_string().contains('\x1b'));
    }

    proptest! {
        #[test]
        fn what_is_taken_stays_below(text in "([a-c.]{0,3}[/\\\\]?){0,6}") {
            if let Ok(path) = unix(&text) {
                let joined = std::path::Path::new("root").join(path.as_str());
                let normal = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(joined.components().all(normal));
                prop_assert!(joined.starts_with("root") && joined != std::path::Path::new("root"));
            }
        }
    }
}
