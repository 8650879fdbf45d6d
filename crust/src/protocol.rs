//! Pure protocol code: bytes and text in, meaning out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod announcement;
pub(crate) mod attachment;
pub(crate) mod cache;
pub(crate) mod contact_wire;
pub(crate) mod detours;
#[cfg(feature = "mdns")]
pub(crate) mod dns_sd;
pub(crate) mod forwarding;
pub(crate) mod improvement;
pub(crate) mod introducer;
pub(crate) mod introduction;
pub(crate) mod kept;
pub(crate) mod neighbours;
pub(crate) mod network_memory;
pub(crate) mod outside;
pub(crate) mod plan;
#[cfg(feature = "dht")]
pub(crate) mod published;
#[cfg(feature = "dht")]
pub(crate) mod publishing;
pub(crate) mod pulse;

/// Any bytes as an announcement, for the fuzz target alone.
#[cfg(fuzzing)]
pub fn fuzz_announcement(bytes: &[u8]) {
    if let Ok(announcement) = announcement::Announcement::decode(bytes) {
        assert_eq!(announcement::Announcement::decode(&announcement.encode()), Ok(announcement));
    }
}
