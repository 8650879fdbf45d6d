//! What the fuzz targets see of the private code; not part of the library as it is built otherwise.

use std::io::BufReader;

use crate::lines::{Line, read_lines};
pub use crate::protocol::{kv::onion::fuzzing::sealed, mesh::check_frame};

/// The lines of some bytes, read in pieces; `None` in the place of one that is too long.
#[must_use]
pub fn lines(bytes: &[u8], piece: usize, limit: usize) -> Vec<Option<Vec<u8>>> {
    let all = std::cell::RefCell::new(Vec::new());
    read_lines(BufReader::with_capacity(piece, bytes), limit, |line| {
        all.borrow_mut().extend(line.map(|line| match line {
            Line::Whole(line) => Some(line),
            Line::TooLong => None,
        }));
        true
    });
    all.into_inner()
}
