use std::{io, path::PathBuf};

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read the configuration {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It is not TOML.
    #[error("{origin}:{line}: {message}")]
    Syntax {
        /// The file, or `configuration`.
        origin: String,
        /// The line, counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// There is no such setting.
    #[error("{origin}:{line}: unknown setting `{name}`{}", .nearest.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default())]
    Unknown {
        /// The file, or `configuration`.
        origin: String,
        /// The line, counted from 1.
        line: usize,
        /// What stands there.
        name: String,
        /// The known name that looks most like it, if one does.
        nearest: Option<&'static str>,
    },
    /// The setting exists, the value is not one for it.
    #[error("{origin}:{line}: `{name}` {reason}")]
    Value {
        /// The file, or `configuration`.
        origin: String,
        /// The line, counted from 1.
        line: usize,
        /// The setting.
        name: &'static str,
        /// What it must be, and what was found.
        reason: String,
    },
}
