use std::{io, path::PathBuf};

use super::protocol::{PathError, ProtocolError};

/// Why a transfer ended early. What has arrived stays, and the next attempt goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TransferError {
    /// The connection broke.
    #[error("the connection was cut off")]
    Stream(#[source] io::Error),
    /// The stream ended in the middle.
    #[error("the other side went away in the middle of the transfer")]
    CutOff,
    /// The other side does not keep to the protocol, or sends what is refused.
    #[error("refused what the other side sent")]
    Protocol(#[from] ProtocolError),
    /// The other side gave up.
    #[error("the other side gave up: {reason}")]
    Peer {
        /// Why, in its words.
        reason: String,
    },
    /// What is to be sent cannot be.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What arrives cannot be kept.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// Why something cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SourceError {
    /// It cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Its name cannot travel.
    #[error("cannot send {}", .path.display())]
    Name {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PathError,
    },
    /// Two of the things to send have one name.
    #[error("{} and {} would both arrive as `{name}`", .first.display(), .second.display())]
    Twice {
        /// The name.
        name: String,
        /// Where it comes from.
        first: PathBuf,
        /// Where it comes from as well.
        second: PathBuf,
    },
    /// Neither file nor folder.
    #[error("{} is neither a file nor a folder", .path.display())]
    Special {
        /// What it is.
        path: PathBuf,
    },
    /// It became shorter.
    #[error("{} changed while it was being sent", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// More than one transfer takes.
    #[error("more than a million files and folders")]
    TooMany,
}

/// Why something cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TargetError {
    /// No room.
    #[error("the disk is full, cannot write {}: make room and run the command again, it goes on where it stopped", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Something else is there.
    #[error("{} is there already and differs: move it away, or give --overwrite", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Something on the way is a link, which may lead anywhere.
    #[error("{} is a symbolic link, through which nothing is written", .path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A folder is needed where there is something else, or the other way round.
    #[error("{} is in the way", .path.display())]
    InTheWay {
        /// What is there.
        path: PathBuf,
    },
    /// The bytes that arrived are not those that were sent.
    #[error("{} did not arrive as it was sent; run the command again", .path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
    },
    /// Another process receives the same file.
    #[error("another process is receiving {}", .path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot write {}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl TargetError {
    pub(super) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path, source }
            }
            _ => Self::Io { path, source },
        }
    }
}
