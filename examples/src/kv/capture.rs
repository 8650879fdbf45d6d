use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use crust::PublicKey;

/// A file of what goes over the streams of this node as the node itself reads it, without the encryption of streams: what somebody sees who
/// has taken it over. A line each: `to` or `from`, the other's key, the message in hexadecimal.
#[derive(Debug)]
pub(super) struct Capture {
    file: File,
    left: usize,
}

impl Capture {
    /// Makes a file, or empties one.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let error = |error| io::Error::other(format!("cannot capture in {}: {error}", path.display()));
        Ok(Self { file: File::create(path).map_err(error)?, left: MAX_CAPTURE })
    }

    /// Writes a message down. It is in the file when this returns.
    pub(super) fn note(&mut self, direction: &str, peer: PublicKey, message: &[u8]) -> io::Result<()> {
        let mut line = format!("{direction} {peer} ");
        for byte in message {
            let _ = write!(line, "{byte:02x}");
        }
        line.push('\n');
        if self.left >= line.len() {
            self.left -= line.len();
            self.file.write_all(line.as_bytes())?;
        } else if self.left > 0 {
            self.left = 0;
            self.file.write_all(b"the rest is left out\n")?;
        }
        Ok(())
    }
}

/// Whoever wants more than this wants something else.
const MAX_CAPTURE: usize = 64 << 20;
