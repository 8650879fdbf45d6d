//! Files and the clock. Nothing is decided here.

pub(crate) mod cache_file;
pub(crate) mod clock;
#[cfg(feature = "dht")]
pub(crate) mod dht;
pub(crate) mod entropy;
pub(crate) mod identity_file;
pub(crate) mod introduce;
pub(crate) mod lan;
pub(crate) mod lan_secret;
pub(crate) mod latest;
pub(crate) mod lock;
pub(crate) mod lookout;
#[cfg(feature = "mdns")]
pub(crate) mod mdns;
mod meeting;
pub(crate) mod outlet;
pub(crate) mod worker;
