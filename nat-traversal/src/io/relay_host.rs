use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::clock::now;
use super::run::{MAX_DATAGRAM_BYTES, receive};
use crate::protocol::turn::{RelayClient, RelayId, RelayOrder, RelayServer, RelayStats, frame_length};

/// Serves a [`RelayServer`] until it is told to stop.
pub(crate) struct Relaying {
    poll: Poll,
    server: RelayServer,
    udp: Socket,
    listener: TcpListener,
    clients: BTreeMap<u64, Client>,
    relays: BTreeMap<RelayId, (usize, Socket)>,
    tokens: BTreeMap<usize, Owner>,
    next_token: usize,
    /// Where lent sockets are bound, and what peers call that.
    relays_at: (SocketAddr, std::net::IpAddr),
    /// What has more to read than one turn takes.
    again: Vec<usize>,
    told: Arc<Mutex<RelayStats>>,
}

/// A socket, and its duplicate that tells the poll what we wait for.
struct Socket(UdpSocket, mio::net::UdpSocket);

#[derive(Clone, Copy)]
enum Owner {
    Clients,
    Listener,
    Client(u64),
    Relay(RelayId),
}

impl Relaying {
    /// Makes ready to serve at these sockets. The waker of the poll has the token [`STOP`].
    pub(crate) fn new(
        server: RelayServer,
        udp: UdpSocket,
        listener: std::net::TcpListener,
        told: Arc<Mutex<RelayStats>>,
        known_as: std::net::IpAddr,
    ) -> io::Result<(Self, mio::Waker)> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), STOP)?;
        let bound = SocketAddr::new(udp.local_addr()?.ip(), 0);
        let udp = Socket::new(udp, &poll, CLIENTS)?;
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, Token(LISTENER), Interest::READABLE)?;
        let relaying = Self {
            poll,
            server,
            udp,
            listener,
            clients: BTreeMap::new(),
            relays: BTreeMap::new(),
            tokens: BTreeMap::from([(CLIENTS, Owner::Clients), (LISTENER, Owner::Listener)]),
            next_token: LISTENER + 1,
            relays_at: (bound, known_as),
            again: Vec::new(),
            told,
        };
        Ok((relaying, waker))
    }

    /// Serves until the waker is woken.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        loop {
            let wait = self.next_timer().map(|due| due.saturating_duration_since(now()));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    tracing::warn!(%error, "the relay stops");
                    return;
                }
                _ => {}
            }
            if events.iter().any(|event| event.token() == STOP) {
                return;
            }
            let mut ready: Vec<usize> = events.iter().map(|event| event.token().0).collect();
            ready.append(&mut self.again);
            ready.sort_unstable();
            ready.dedup();
            for token in ready {
                self.turn(token, &mut buffer);
            }
            self.handle_timers();
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = self.server.stats();
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        if !self.again.is_empty() {
            return Some(now());
        }
        let strangers = self.clients.values().filter_map(|client| client.end);
        strangers.chain(self.server.poll_timeout()).min()
    }

    fn handle_timers(&mut self) {
        let time = now();
        self.server.handle_timeout(time);
        self.carry_out();
        let late = self.clients.iter().filter(|(_, client)| client.end.is_some_and(|end| end <= time));
        for number in late.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.lose(number);
        }
    }

    fn turn(&mut self, token: usize, buffer: &mut [u8]) {
        match self.tokens.get(&token).copied() {
            Some(Owner::Listener) => self.accept(),
            Some(Owner::Client(number)) => self.serve_stream(number),
            Some(Owner::Clients) => self.serve_datagrams(token, None, buffer),
            Some(Owner::Relay(relay)) => self.serve_datagrams(token, Some(relay), buffer),
            None => {}
        }
    }

    /// Takes datagrams of clients, or of the peers of a relay.
    fn serve_datagrams(&mut self, token: usize, relay: Option<RelayId>, buffer: &mut [u8]) {
        for _ in 0..AT_A_TIME {
            let socket = match relay {
                None => &self.udp,
                Some(relay) => match self.relays.get(&relay) {
                    Some((_, socket)) => socket,
                    None => return,
                },
            };
            match receive(&socket.1, buffer) {
                Ok(Some((length, from))) => match relay {
                    None => self.server.handle_client(now(), RelayClient::Datagrams(from), &buffer[..length]),
                    Some(relay) => self.server.handle_peer(now(), relay, from, &buffer[..length]),
                },
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "the relay cannot receive"),
            }
            self.carry_out();
        }
        self.again.push(token);
    }

    fn accept(&mut self) {
        while let Ok((mut stream, from)) = self.listener.accept() {
            if self.clients.len() >= MAX_STREAMS {
                // Who has shown nothing yet makes place, or idle strangers could shut out everybody.
                let strangers = self.clients.iter().filter_map(|(number, one)| Some((one.end?, *number)));
                let Some((_, oldest)) = strangers.min() else { continue };
                self.lose(oldest);
            }
            let (token, number) = (self.next_token, self.next_token as u64);
            self.next_token += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self.poll.registry().register(&mut stream, Token(token), interest).is_ok() {
                let _ = stream.set_nodelay(true);
                let end = Some(now() + TO_ALLOCATE);
                let (received, sending) = (Vec::new(), VecDeque::new());
                self.clients.insert(number, Client { stream, from, token, received, sending, end });
                self.tokens.insert(token, Owner::Client(number));
            }
        }
    }

    fn serve_stream(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let (who, token) = (RelayClient::Stream(number, client.from), client.token);
        let (messages, state) = client.read();
        for message in messages {
            self.server.handle_client(now(), who, &message);
            self.carry_out();
        }
        let serves = self.server.serves(who);
        let Some(client) = self.clients.get_mut(&number) else { return };
        match (serves, client.end) {
            (true, Some(_)) => client.end = None,
            (false, None) => client.end = Some(now() + TO_ALLOCATE),
            _ => {}
        }
        match (state, client.flush()) {
            (Err(_), _) | (_, Err(_)) => self.lose(number),
            (Ok(true), _) => self.again.push(token),
            _ => {}
        }
    }

    fn carry_out(&mut self) {
        while let Some(order) = self.server.poll_order() {
            match order {
                RelayOrder::Answer(RelayClient::Datagrams(to), bytes) => self.udp.send(&bytes, to),
                RelayOrder::Answer(RelayClient::Stream(number, _), bytes) => {
                    let Some(client) = self.clients.get_mut(&number) else { continue };
                    if !client.push(&bytes) || client.flush().is_err() {
                        self.lose(number);
                    }
                }
                RelayOrder::Open(relay) => {
                    let opened = self.open(relay);
                    if let Err(error) = &opened {
                        tracing::warn!(%error, "the relay has no socket to lend");
                    }
                    self.server.handle_opened(now(), relay, opened.ok());
                }
                RelayOrder::Send(relay, peer, bytes) => {
                    if let Some((_, socket)) = self.relays.get(&relay) {
                        socket.send(&bytes, peer);
                    }
                }
                RelayOrder::Close(relay) => {
                    if let Some((token, mut socket)) = self.relays.remove(&relay) {
                        self.tokens.remove(&token);
                        let _ = self.poll.registry().deregister(&mut socket.1);
                    }
                }
            }
        }
    }

    fn open(&mut self, relay: RelayId) -> io::Result<SocketAddr> {
        let (at, known_as) = self.relays_at;
        let socket = UdpSocket::bind(at)?;
        let port = socket.local_addr()?.port();
        let token = self.next_token;
        self.next_token += 1;
        let socket = Socket::new(socket, &self.poll, token)?;
        self.tokens.insert(token, Owner::Relay(relay));
        self.relays.insert(relay, (token, socket));
        Ok(SocketAddr::new(known_as, port))
    }

    fn lose(&mut self, number: u64) {
        let Some(mut client) = self.clients.remove(&number) else { return };
        self.tokens.remove(&client.token);
        let _ = self.poll.registry().deregister(&mut client.stream);
        self.server.handle_gone(RelayClient::Stream(number, client.from));
        self.carry_out();
    }
}

impl Socket {
    fn new(socket: UdpSocket, poll: &Poll, token: usize) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let mut source = mio::net::UdpSocket::from_std(socket.try_clone()?);
        poll.registry().register(&mut source, Token(token), Interest::READABLE)?;
        Ok(Self(socket, source))
    }

    /// What the kernel has no room for is lost, as anywhere on the way.
    fn send(&self, bytes: &[u8], to: SocketAddr) {
        if let Err(error) = self.1.try_io(|| self.0.send_to(bytes, to)) {
            tracing::trace!(%error, %to, "the relay cannot send");
        }
    }
}

/// One TCP connection.
struct Client {
    stream: TcpStream,
    from: SocketAddr,
    token: usize,
    received: Vec<u8>,
    sending: VecDeque<u8>,
    /// When it must hold an address; `None` while it does.
    end: Option<Instant>,
}

impl Client {
    /// The messages that have arrived whole, and whether there may be more to read; an error is the end.
    fn read(&mut self) -> (Vec<Vec<u8>>, io::Result<bool>) {
        let mut messages = Vec::new();
        let mut chunk = [0; 16 << 10];
        for _ in 0..AT_A_TIME / 4 {
            match self.stream.read(&mut chunk) {
                Ok(0) => return (messages, Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => self.received.extend(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (messages, Ok(false)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return (messages, Err(error)),
            }
            loop {
                match frame_length(&self.received) {
                    Err(error) => return (messages, Err(io::Error::other(error))),
                    Ok(Some(length)) if length <= self.received.len() => {
                        messages.push(self.received.drain(..length).collect());
                    }
                    // A message has at most 65,556 bytes, so that no more than that waits.
                    Ok(_) => break,
                }
            }
        }
        (messages, Ok(true))
    }

    /// Puts a message behind what waits; false if it is an answer for which there is no room. Payload is dropped then, as
    /// UDP is.
    fn push(&mut self, bytes: &[u8]) -> bool {
        if self.sending.len() + bytes.len() <= MAX_SENDING_BYTES {
            self.sending.extend(bytes);
            return true;
        }
        bytes.first().is_some_and(|first| first >> 4 == 4)
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.sending.is_empty() {
            match self.stream.write(self.sending.as_slices().0) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => drop(self.sending.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Token of the waker that ends the run.
const STOP: Token = Token(usize::MAX);
const CLIENTS: usize = 0;
const LISTENER: usize = 1;
/// Datagrams taken from one socket before the others have their turn.
const AT_A_TIME: usize = 64;
/// Connections at a time; one that relays nothing has at most a message in its buffer.
const MAX_STREAMS: usize = 512;
/// A challenge and an answer take two round trips.
const TO_ALLOCATE: Duration = Duration::from_secs(10);
/// A quarter of a second at the usual rate; what is behind it would come too late.
const MAX_SENDING_BYTES: usize = 512 << 10;
