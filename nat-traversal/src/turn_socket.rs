use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use mio::event::Source;
use mio::{Interest, Registry, Token};

use crate::TurnServer;
use crate::io::run::MAX_DATAGRAM_BYTES;
use crate::io::turn_link::{Read, TurnWay};
use crate::io::{clock, entropy};
use crate::protocol::turn::{
    AddressFamily, TurnClient, TurnEvent, TurnLink, TurnReceived, TurnSendError, TurnStats,
};
use crate::protocol::{Datagram, Machine as _, SocketIndex};
use crate::turn_server::TurnTransport;

/// A TURN allocation and its socket for a program with a poll of its own: nothing here waits, and there is no thread.
///
/// Register it with a mio `Poll`, call [`turn`](Self::turn) whenever it is ready or [`poll_timeout`](Self::poll_timeout)
/// is over, and then drain [`poll_event`](Self::poll_event). Peers are reached once [`TurnEvent::Allocated`] has come. For
/// a caller that waits there is [`RelayedUdpSocket`](crate::RelayedUdpSocket); a program that carries TURN over a socket of
/// its own drives a [`TurnClient`] instead.
///
/// ```no_run
/// use std::time::Instant;
/// use nat_traversal::protocol::turn::AddressFamily;
/// use nat_traversal::{TurnServer, TurnSocket};
///
/// let server: TurnServer = "turn:alice:secret@203.0.113.20".parse()?;
/// let mut relay = TurnSocket::connect(&server, "203.0.113.20:3478".parse()?, AddressFamily::V4)?;
/// let mut poll = mio::Poll::new()?;
/// poll.registry().register(&mut relay, mio::Token(0), mio::Interest::READABLE)?;
/// let mut events = mio::Events::with_capacity(16);
/// loop {
///     let wait = relay.poll_timeout().map(|due| due.saturating_duration_since(Instant::now()));
///     poll.poll(&mut events, wait)?;
///     while relay.turn(|peer, payload| println!("{} bytes from {peer}", payload.len())) {}
///     while let Some(event) = relay.poll_event() {
///         println!("{event:?}");
///     }
/// }
/// # #[allow(unreachable_code)] Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TurnSocket {
    client: TurnClient,
    way: TurnWay,
    server: TurnServer,
    registration: Option<(Registry, Token)>,
    error: Option<io::Error>,
    buffer: Vec<u8>,
}

impl TurnSocket {
    /// Begins to connect to `server` at `address`, which its host resolves to, and to ask for an allocation of this family: by UDP the first
    /// request has left. Returns at once.
    ///
    /// # Errors
    ///
    /// If the system gives no socket, or the file with the server's authority cannot be read.
    pub fn connect(server: &TurnServer, address: SocketAddr, family: AddressFamily) -> io::Result<Self> {
        let way = TurnWay::connect(server, address)?;
        let link = match server.transport() {
            TurnTransport::Udp => TurnLink::Datagrams,
            TurnTransport::Tcp | TurnTransport::Tls => TurnLink::Stream,
        };
        let credentials = server.credentials().clone();
        let now = clock::now();
        let client = TurnClient::new(now, address, link, family, credentials, entropy::seed());
        let buffer = vec![0; MAX_DATAGRAM_BYTES];
        let mut socket =
            Self { client, way, server: server.clone(), registration: None, error: None, buffer };
        if let TurnWay::Udp(_) = socket.way {
            // No event of a poll will tell that it can be sent, and the next that is due is its repetition.
            socket.send_all(now);
        }
        Ok(socket)
    }

    /// Does what is due, sends what waits and reads what has come, up to 64 messages; `on_data` gets what peers sent. If it
    /// returns true, more has come already, of which the poll will not tell again: turn once more.
    pub fn turn(&mut self, mut on_data: impl FnMut(SocketAddr, &[u8])) -> bool {
        let now = clock::now();
        if self.client.poll_timeout().is_some_and(|due| due <= now) {
            self.client.handle_timeout(now);
        }
        self.send_all(now);
        let mut more = true;
        for _ in 0..MESSAGES_A_TURN {
            match self.read_one(now, &mut on_data) {
                Ok(true) => {}
                Ok(false) => {
                    more = false;
                    break;
                }
                Err(error) => {
                    self.handle_error(now, error);
                    more = matches!(self.way, TurnWay::Udp(_)) && self.relayed_address().is_some();
                    break;
                }
            }
        }
        self.send_all(now);
        more
    }

    /// Sends a packet to a peer, with one system call and without a copy where a channel is bound and the server is
    /// reached by UDP. As with UDP itself, it may get lost: it does if the system's buffer is full.
    ///
    /// # Errors
    ///
    /// As for [`TurnClient::frame`]; [`TurnSendError::Busy`] if a stream to the server is so far behind that 256 KiB wait.
    pub fn send_to(&mut self, payload: &[u8], peer: SocketAddr) -> Result<(), TurnSendError> {
        let now = clock::now();
        if self.way.is_full() {
            return Err(TurnSendError::Busy);
        }
        let sent = if let Some(head) = self.client.channel_head(now, peer, payload.len()) {
            let padding = match self.way {
                TurnWay::Udp(_) => 0,
                TurnWay::Stream(_) => payload.len().next_multiple_of(4) - payload.len(),
            };
            self.way.send([&head, payload, &[0; 3][..padding]])
        } else {
            let mut frame = Vec::new();
            self.client.frame(now, peer, payload, &mut frame)?;
            self.send_all(now);
            self.way.send([&frame, &[], &[]])
        };
        if let Err(error) = sent {
            self.handle_error(now, error);
        }
        Ok(())
    }

    /// Lets a peer send to us, from any port of its address, before we have sent to it.
    ///
    /// # Errors
    ///
    /// As for [`TurnClient::permit`].
    pub fn permit(&mut self, peer: std::net::IpAddr) -> Result<(), TurnSendError> {
        let now = clock::now();
        self.client.permit(now, peer)?;
        self.send_all(now);
        Ok(())
    }

    /// Finds out now whether the server still knows us; see [`TurnClient::check`].
    pub fn check(&mut self) {
        let now = clock::now();
        self.client.check(now);
        self.send_all(now);
    }

    /// When the server last did as it was asked; see [`TurnClient::last_served`].
    #[must_use]
    pub const fn last_served(&self) -> Option<Instant> {
        self.client.last_served()
    }

    /// Asks for a channel to a peer; see [`TurnClient::bind`].
    ///
    /// # Errors
    ///
    /// As for [`TurnClient::bind`].
    pub fn bind(&mut self, peer: SocketAddr) -> Result<(), TurnSendError> {
        let now = clock::now();
        self.client.bind(now, peer)?;
        self.send_all(now);
        Ok(())
    }

    /// Gives the allocation back. Turn until [`TurnEvent::Closed`] comes, or drop it, in which case the server keeps the
    /// allocation for up to ten minutes if it was reached by UDP.
    pub fn close(&mut self) {
        let now = clock::now();
        self.client.close(now);
        self.send_all(now);
    }

    /// When to call [`turn`](Self::turn) if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.client.poll_timeout()
    }

    /// The next event. Data of peers is none: it goes to [`turn`](Self::turn).
    pub fn poll_event(&mut self) -> Option<TurnEvent> {
        self.client.poll_event()
    }

    /// The system's or TLS's reason for [`TurnFailure::Disconnected`](crate::protocol::turn::TurnFailure::Disconnected).
    pub const fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// The relay's address at which peers reach us, as long as there is one.
    #[must_use]
    pub const fn relayed_address(&self) -> Option<SocketAddr> {
        self.client.relayed_address()
    }

    /// What was counted so far.
    #[must_use]
    pub const fn stats(&self) -> TurnStats {
        self.client.stats()
    }

    fn read_one(&mut self, now: Instant, on_data: &mut impl FnMut(SocketAddr, &[u8])) -> io::Result<bool> {
        let Read::Message(bytes) = self.way.read(&mut self.buffer)? else { return Ok(false) };
        let datagram = Datagram { socket: SocketIndex::MAIN, source: self.client.server(), bytes };
        let before = self.client.server();
        if let TurnReceived::Data { peer, payload } = self.client.receive(now, datagram) {
            on_data(peer, payload);
        }
        if self.client.server() != before {
            self.reconnect(now)?;
        }
        self.send_all(now);
        Ok(true)
    }

    /// Connects to the server that we were referred to.
    fn reconnect(&mut self, now: Instant) -> io::Result<()> {
        let mut way = TurnWay::connect(&self.server, self.client.server())?;
        if let Some((registry, token)) = &self.registration {
            self.way.deregister(registry)?;
            way.register(registry, *token)?;
        }
        self.way = way;
        self.client.handle_reconnected(now);
        Ok(())
    }

    fn send_all(&mut self, now: Instant) {
        while let Some(transmit) = self.client.poll_transmit() {
            if let Err(error) = self.way.send([&transmit.bytes, &[], &[]]) {
                self.handle_error(now, error);
            }
        }
    }

    fn handle_error(&mut self, now: Instant, error: io::Error) {
        if matches!(self.way, TurnWay::Stream(_)) {
            self.client.handle_disconnected();
            self.error.get_or_insert(error);
        } else if error.kind() == io::ErrorKind::ConnectionRefused {
            self.client.handle_unreachable(now);
        } else {
            tracing::debug!(%error, "cannot receive from the relay");
        }
    }
}

impl Source for TurnSocket {
    /// Registers for whatever the socket is to be watched for, whichever the interests.
    fn register(&mut self, registry: &Registry, token: Token, _interests: Interest) -> io::Result<()> {
        self.registration = Some((registry.try_clone()?, token));
        self.way.register(registry, token)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.way.deregister(registry)?;
        self.register(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.registration = None;
        self.way.deregister(registry)
    }
}

/// After so many others get their turn.
const MESSAGES_A_TURN: u32 = 64;
