use std::net::SocketAddr;
use std::time::Instant;

/// A protocol without sockets, clocks or threads: whoever drives it passes in datagrams and the time.
///
/// # Contract
///
/// After construction, and after every `handle_*`, the driver drains [`poll_transmit`](Self::poll_transmit), then
/// [`poll_event`](Self::poll_event), and then reads [`poll_timeout`](Self::poll_timeout) to learn when to call
/// [`handle_timeout`](Self::handle_timeout). `now` never goes back. Any datagram may be handed in: what is not for the
/// machine is ignored. Two machines built alike and fed alike do alike, since their only randomness is a
/// [`Seed`](super::Seed).
///
/// `io::run` drives machines over real sockets, and `testing::Net` (feature `testing`) over a network in memory.
pub trait Machine {
    /// What the machine tells its user.
    type Event;

    /// Takes in a datagram that arrived on one of the machine's sockets.
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>);

    /// Does whatever is due. Calls that come early are harmless.
    fn handle_timeout(&mut self, now: Instant);

    /// The next datagram to send; `None` when there is none for now.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// When the machine next wants to be woken; `None` if it only waits for the network.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The next event; `None` when there is none for now.
    fn poll_event(&mut self) -> Option<Self::Event>;
}

/// A datagram that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// The socket it arrived on.
    pub socket: SocketIndex,
    /// Where it came from.
    pub source: SocketAddr,
    /// Its payload.
    pub bytes: &'a [u8],
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The socket to send it from.
    pub socket: SocketIndex,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Its payload.
    pub bytes: Vec<u8>,
    /// How many routers it may pass; `None` for the system's default.
    pub hops: Option<u8>,
}

/// Which of a machine's sockets: [`SocketIndex::MAIN`] is the one it was given.
///
/// A driver opens a socket that it has not been given when a machine first names it, on an address like the main one's
/// and a port of the system's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketIndex(pub u16);

impl SocketIndex {
    /// The socket that the machine was given.
    pub const MAIN: Self = Self(0);
}
