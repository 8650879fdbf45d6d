//! Thin drivers: sockets, the clock, entropy, threads. They decide nothing about protocols.

pub(crate) mod ask_router;
pub(crate) mod clock;
pub(crate) mod entropy;
pub(crate) mod interfaces;
pub(crate) mod interrupt;
pub(crate) mod lease_slot;
pub(crate) mod leases;
#[cfg(feature = "turn")]
pub(crate) mod names;
pub(crate) mod profile;
#[cfg(feature = "turn")]
pub(crate) mod relay_host;
#[cfg(feature = "turn")]
pub(crate) mod relays;
pub(crate) mod run;
pub(crate) mod run_tcp;
pub(crate) mod serve;
pub(crate) mod slow;
pub(crate) mod socket;
pub(crate) mod stun_tcp;
#[cfg(feature = "turn")]
pub(crate) mod tls_client;
#[cfg(feature = "turn")]
pub(crate) mod turn_link;
pub(crate) mod upnp;
pub(crate) mod worker;
