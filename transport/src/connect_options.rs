use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use nat_traversal::PunchOptions;

use crate::{
    Interrupter,
    admission::{AccessToken, NetworkName, ProtocolLabel},
};

/// How to dial; see [`Stream::connect_with`](crate::Stream::connect_with).
///
/// ```
/// use std::time::Duration;
/// use transport::{ConnectOptions, ProtocolLabel};
///
/// let options = ConnectOptions::new().protocol(ProtocolLabel::new("chat/1")?).timeout(Duration::from_secs(3));
/// # let _ = options;
/// # Ok::<(), transport::LabelError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    pub(crate) label: ProtocolLabel,
    pub(crate) token: Option<AccessToken>,
    pub(crate) network: NetworkName,
    pub(crate) limit: Option<Limit>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) own_connection: bool,
    pub(crate) single: bool,
    pub(crate) interrupter: Option<Interrupter>,
    pub(crate) punch: PunchOptions,
}

/// When a dial must be over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    After(Duration),
    At(Instant),
}

impl ConnectOptions {
    /// The defaults: no label, no token, the transport's own timeout.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the acceptor for this protocol. Default: the empty label.
    #[must_use]
    pub fn protocol(mut self, label: ProtocolLabel) -> Self {
        self.label = label;
        self
    }

    /// Shows the acceptor this token. Default: none.
    #[must_use]
    pub fn access_token(mut self, token: AccessToken) -> Self {
        self.token = Some(token);
        self
    }

    /// Names the network that we belong to; an acceptor of another one refuses us. Default: the empty name.
    #[must_use]
    pub fn network(mut self, name: NetworkName) -> Self {
        self.network = name;
        self
    }

    /// Gives up after this time, name look-up and verdict included. Default: the transport's
    /// [`connect_timeout`](crate::TransportConfig::connect_timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limit = Some(Limit::After(timeout));
        self
    }

    /// Gives up at this instant.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.limit = Some(Limit::At(deadline));
        self
    }

    /// Dials from this local address; port 0 lets the system choose. Default: the system chooses.
    #[must_use]
    pub fn local_addr(mut self, addr: SocketAddr) -> Self {
        self.local = Some(addr);
        self
    }

    /// When a call that begins now must be over.
    pub(crate) fn deadline_of(&self, begun: Instant, usual: Duration) -> Instant {
        match self.limit {
            Some(Limit::At(deadline)) => deadline,
            Some(Limit::After(timeout)) => begun + timeout.min(LONGEST),
            None => begun + usual.min(LONGEST),
        }
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupter.as_ref().is_some_and(Interrupter::is_interrupted)
    }

    /// Gives the stream a QUIC connection that no other stream shares, with congestion control and windows of its own: for
    /// bulk beside others. Costs a handshake, each time. Default: QUIC streams to one endpoint share a connection. TCP streams
    /// never do.
    #[must_use]
    pub fn own_connection(mut self) -> Self {
        self.own_connection = true;
        self
    }

    /// Meets a peer that dials us with the same option and label: both calls return the two ends of one stream, whichever began
    /// first and by whichever of the two directions it came about, and no `accept` sees it. Default: each dial has a stream of
    /// its own, whose other end comes out of the peer's `accept`.
    ///
    /// It waits for the peer's call until its own deadline, dialling its addresses again after two seconds at most, 128 times
    /// in all; if only one of the two listens, that is enough. One such call at a time to one peer with one label; the
    /// next one begins a second after the last has ended. The peer is admitted by its key alone, as we dial it: token, network
    /// and [own address](Self::local_addr) of a dial play no part, and the stream has a connection of its own.
    #[must_use]
    pub fn single(mut self) -> Self {
        self.single = true;
        self
    }

    /// At which addresses of the peer a [rendezvous](crate::Rendezvous::connect) may try many ports, which takes somebody besides the
    /// peer who says that it is there. Default: at none but those that are [vouched for](crate::RendezvousChannel::vouch) meanwhile.
    #[must_use]
    pub fn punch(mut self, options: PunchOptions) -> Self {
        self.punch = options;
        self
    }

    /// Lets another thread end the dial. Default: only its deadline and the transport's end do.
    #[must_use]
    pub fn interrupter(mut self, interrupter: &Interrupter) -> Self {
        self.interrupter = Some(interrupter.clone());
        self
    }
}

/// Nobody waits for a year; and adding more to an `Instant` may overflow on some systems.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
