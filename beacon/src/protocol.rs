//! The protocol without sockets, clocks or threads: [`Discovery`] takes datagrams and the time, and gives datagrams
//! to send, the next time it wants to be called and what it learned of others.
//!
//! [`Beacon`](crate::Beacon) drives it over real sockets. It is public so that it can be run in virtual time, fuzzed,
//! or driven by another loop. The contract: *after any `handle_*`, `set_*` or `close`, drain
//! [`poll_transmit`](Discovery::poll_transmit), then [`poll_event`](Discovery::poll_event), then read
//! [`poll_timeout`](Discovery::poll_timeout)*. `now` never goes back.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod announcer;
mod answers;
mod discovery;
mod envelope;
mod filter;
mod freshness;
mod link;
mod packet;
mod peers;
mod private;
mod seal;
mod seed;
mod seekers;

pub use announcer::MIN_PERIOD;
pub use discovery::{Destination, Discovery, DiscoveryConfig, Transmit};
pub use filter::Refusals;
pub use link::{Link, LinkId, Network};
pub use packet::{ASK_BYTES, DecodeError, Kind, MAX_ID_BYTES, MAX_PACKET_BYTES, Packet, Tag, TooLarge};
pub use peers::{Departure, Event, News};
pub use seal::{GroupSecret, SecretTooShort};
pub use seed::Seed;

/// What a member of a group could say with these bytes as an envelope; for the fuzz targets alone.
#[cfg(fuzzing)]
#[must_use]
pub fn sealed(secret: GroupSecret, envelope: &[u8]) -> Vec<u8> {
    seal::Seal::new(secret, &Seed::new([9; 32])).seal(envelope)
}

/// Any instant at which a test can begin; an `Instant` cannot be made in another way.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning, and all is relative to it")]
fn any_instant() -> std::time::Instant {
    std::time::Instant::now()
}
