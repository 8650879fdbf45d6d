//! Pure protocol code: bytes, addresses, `now` and seeds in; bytes, deadlines and events out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod demux;
#[cfg(any(test, fuzzing))]
pub(crate) mod dice;
pub(crate) mod doors;
pub(crate) mod handshake;
pub(crate) mod meetings;
pub(crate) mod offer;
pub(crate) mod paths;
pub(crate) mod pending;
pub(crate) mod precedence;
pub(crate) mod preface;
pub(crate) mod punching;
pub(crate) mod quic;
pub(crate) mod race;
pub(crate) mod raw_key;
pub(crate) mod reunion;
pub(crate) mod rounds;
pub(crate) mod search;
pub(crate) mod sorted_map;
pub(crate) mod telling;
pub(crate) mod tls;
pub(crate) mod verdict;
pub(crate) mod wire;
