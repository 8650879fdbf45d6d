//! What a measuring stream asks for: its first five bytes.
//!
//! ```text
//! +--------+-------------------------------+
//! | kind   | milliseconds, 4 bytes         |   0: echo, 1: take and count, 2: give for so long
//! +--------+-------------------------------+
//! ```
//!
//! After "take" the answer to the end of the stream is the number of bytes, eight of them. Network order.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// What one stream is to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Send back whatever comes.
    Echo,
    /// Take all that comes, then say how much it was.
    Take,
    /// Send for this long.
    Give { duration: Duration },
}

impl Request {
    pub(super) const BYTES: usize = 5;

    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        let (kind, duration) = match self {
            Self::Echo => (0, Duration::ZERO),
            Self::Take => (1, Duration::ZERO),
            Self::Give { duration } => (2, duration),
        };
        let [a, b, c, d] = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).to_be_bytes();
        [kind, a, b, c, d]
    }

    pub(super) fn decode([kind, a, b, c, d]: [u8; Self::BYTES]) -> Option<Self> {
        let duration = Duration::from_millis(u64::from(u32::from_be_bytes([a, b, c, d])));
        match kind {
            0 => Some(Self::Echo),
            1 => Some(Self::Take),
            2 => Some(Self::Give { duration }),
            _ => None,
        }
    }
}

/// How much was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) bytes: u64,
}

impl Tally {
    pub(super) const BYTES: usize = 8;

    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        self.bytes.to_be_bytes()
    }

    pub(super) fn decode(bytes: [u8; Self::BYTES]) -> Self {
        Self { bytes: u64::from_be_bytes(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_bytes_read_and_write() {
        let give = Request::Give { duration: Duration::from_secs(2) };
        for (request, bytes) in
            [(Request::Echo, [0, 0, 0, 0, 0]), (Request::Take, [1, 0, 0, 0, 0]), (give, [2, 0, 0, 7, 0xd0])]
        {
            assert_eq!(request.encode(), bytes);
            assert_eq!(Request::decode(bytes), Some(request));
        }
        assert_eq!(Request::decode([3, 0, 0, 0, 0]), None);
        assert_eq!(Tally::decode(Tally { bytes: 258 }.encode()).bytes, 258);
    }
}
