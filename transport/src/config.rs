use std::time::Duration;

use crate::admission::Admission;

/// How a [`Transport`](crate::Transport) behaves. Every value has a default that serves; each says why.
///
/// ```
/// use std::time::Duration;
/// use transport::{Driver, TransportConfig};
///
/// let config = TransportConfig::default().dead_after(Duration::from_secs(5)).driver(Driver::Caller);
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
pub struct TransportConfig {
    pub(crate) driver: Driver,
    pub(crate) admission: Admission,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) dead_after: Option<Duration>,
    pub(crate) linger: Duration,
    pub(crate) resume_sessions: bool,
    pub(crate) max_mtu: u16,
    pub(crate) limits: Limits,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            driver: Driver::Background,
            admission: Admission::default(),
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            dead_after: Some(Duration::from_secs(30)),
            linger: Duration::from_secs(1),
            resume_sessions: true,
            max_mtu: 65_500,
            limits: Limits::default(),
        }
    }
}

impl TransportConfig {
    /// Who waits for the network. Default: [`Driver::Background`], one thread of the library's.
    #[must_use]
    pub fn driver(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    /// Who may open a stream here. Default: every key, the empty protocol label, no token.
    #[must_use]
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// How long a dial without a deadline of its own may take, name look-up and verdict included. Default: 10 s, which
    /// is three lost SYNs.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an incoming handshake may take, from its first packet to its preface. Default: 10 s: a slow honest
    /// peer needs a few round trips, an attacker gets no more.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long a peer may be silent before its streams end with
    /// [`StreamError::PeerLost`](crate::StreamError::PeerLost); `None` is never. At least 2 s. Default: 30 s, with probes
    /// often enough that a living peer is never silent for that long.
    #[must_use]
    pub fn dead_after(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.dead_after = silence.into().map(|silence| silence.max(MIN_DEAD_AFTER));
        self
    }

    /// How long dropping the last handle waits for streams that are still ending. Default: 1 s.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Whether handshakes with a peer known from before may be shortened by what both remember of it (RFC 8446 §2.2). Default:
    /// yes: it saves the signatures, and the peer's key is compared all the same.
    #[must_use]
    pub fn resume_sessions(mut self, resume: bool) -> Self {
        self.resume_sessions = resume;
        self
    }

    /// The largest UDP payload that path MTU discovery may find, in bytes: from 1,200 to 65,500. Default: 65,500; what a
    /// path really carries is probed, and the probes stay below the interface's own MTU.
    #[must_use]
    pub fn max_mtu(mut self, bytes: u16) -> Self {
        self.max_mtu = bytes.clamp(1_200, 65_500);
        self
    }

    /// The bounds on what peers can make this side hold.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// Who waits for the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// One named thread, `transport-io`, and whichever caller waits.
    Background,
    /// No thread: callers that wait do the work, and the application calls
    /// [`Transport::turn`](crate::Transport::turn) when none of its threads waits.
    Caller,
}

/// The bounds on what peers can make one transport hold; on by default.
#[derive(Debug, Clone)]
pub struct Limits {
    pub(crate) pending_handshakes: usize,
    pub(crate) pending_handshakes_per_prefix: usize,
    pub(crate) accept_queue: usize,
    pub(crate) streams_per_connection: u32,
    pub(crate) stream_receive_bytes: u64,
    pub(crate) connection_receive_bytes: u64,
    pub(crate) receive_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending_handshakes: 1_024,
            pending_handshakes_per_prefix: 64,
            accept_queue: 128,
            streams_per_connection: 128,
            stream_receive_bytes: 12_500_000,
            connection_receive_bytes: 512 << 10,
            receive_bytes: 256 << 20,
        }
    }
}

impl Limits {
    /// Incoming handshakes in progress, for each scheme. Over it TCP leaves dialers in the backlog; over a quarter of it QUIC
    /// asks dialers to prove their address first (Retry). Default: 1,024; one over QUIC holds some 30 KiB.
    #[must_use]
    pub fn pending_handshakes(mut self, number: usize) -> Self {
        self.pending_handshakes = number.max(1);
        self
    }

    /// The same for one /24 (IPv4) or /48 (IPv6), loopback, link-local and private sources apart. Default: 64.
    #[must_use]
    pub fn pending_handshakes_per_prefix(mut self, number: usize) -> Self {
        self.pending_handshakes_per_prefix = number.max(1);
        self
    }

    /// Streams that are ready and wait for `accept`; further ones are refused with
    /// [`Refusal::Full`](crate::Refusal::Full). Default: 128.
    #[must_use]
    pub fn accept_queue(mut self, number: usize) -> Self {
        self.accept_queue = number.max(1);
        self
    }

    /// Streams that one QUIC peer may have open at a time. Default: 128.
    #[must_use]
    pub fn streams_per_connection(mut self, number: u32) -> Self {
        self.streams_per_connection = number.max(1);
        self
    }

    /// Bytes that one QUIC stream may have in flight towards us. Default: 12.5 MB, 1 Gbit/s at 100 ms.
    #[must_use]
    pub fn stream_receive_bytes(mut self, bytes: u64) -> Self {
        self.stream_receive_bytes = bytes;
        self
    }

    /// Bytes that all streams of one QUIC connection may have in flight towards us at first; doubles while the reader
    /// keeps up. Default: 512 KiB.
    #[must_use]
    pub fn connection_receive_bytes(mut self, bytes: u64) -> Self {
        self.connection_receive_bytes = bytes;
        self
    }

    /// Bytes that all QUIC connections together may have in flight towards us. Default: 256 MiB.
    #[must_use]
    pub fn receive_bytes(mut self, bytes: u64) -> Self {
        self.receive_bytes = bytes;
        self
    }
}

/// Below this, one lost probe and its repetition would end healthy streams.
const MIN_DEAD_AFTER: Duration = Duration::from_secs(2);
