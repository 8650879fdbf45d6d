//! Thin drivers: sockets, clock, entropy, threads. They decide nothing.

pub(crate) mod accept_queue;
pub(crate) mod acceptor;
pub(crate) mod alarm;
pub(crate) mod chore;
pub(crate) mod clock;
pub(crate) mod crank;
pub(crate) mod dial;
mod direct;
pub(crate) mod driver;
pub(crate) mod ending;
pub(crate) mod entropy;
pub(crate) mod forget;
pub(crate) mod handshake;
pub(crate) mod later;
pub(crate) mod lock;
pub(crate) mod network;
pub(crate) mod path_news;
pub(crate) mod pool;
pub(crate) mod quic;
pub(crate) mod ready_list;
pub(crate) mod rendezvous;
pub(crate) mod resolve;
pub(crate) mod slot;
pub(crate) mod sources;
pub(crate) mod sync;
pub(crate) mod tcp;
pub(crate) mod udp;
