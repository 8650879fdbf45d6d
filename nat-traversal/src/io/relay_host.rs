use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::Interest;
use mio::net::{TcpListener, TcpStream};

use super::clock::now;
use super::run::{MAX_DATAGRAM_BYTES, receive};
use super::worker::{Sources, Task, Turn};
use crate::protocol::turn::{RelayClient, RelayId, RelayOrder, RelayServer, RelayStats, frame_length};

/// Serves a [`RelayServer`].
pub(crate) struct Relaying {
    sources: Sources,
    server: RelayServer,
    udp: Socket,
    listener: TcpListener,
    clients: BTreeMap<u64, Client>,
    relays: BTreeMap<RelayId, (usize, Socket)>,
    owners: BTreeMap<usize, Owner>,
    next_number: usize,
    /// Where lent sockets are bound, and what peers call that.
    relays_at: (SocketAddr, std::net::IpAddr),
    /// What has more to read than one turn takes.
    again: Vec<usize>,
    told: Arc<Mutex<RelayStats>>,
    buffer: Vec<u8>,
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
    /// Serves at these sockets.
    pub(crate) fn new(
        sources: Sources,
        server: RelayServer,
        udp: UdpSocket,
        listener: std::net::TcpListener,
        told: Arc<Mutex<RelayStats>>,
        known_as: std::net::IpAddr,
    ) -> io::Result<Self> {
        let bound = SocketAddr::new(udp.local_addr()?.ip(), 0);
        let udp = Socket::new(udp, &sources, CLIENTS)?;
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        sources.register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            sources,
            server,
            udp,
            listener,
            clients: BTreeMap::new(),
            relays: BTreeMap::new(),
            owners: BTreeMap::from([(CLIENTS, Owner::Clients), (LISTENER, Owner::Listener)]),
            next_number: LISTENER + 1,
            relays_at: (bound, known_as),
            again: Vec::new(),
            told,
            buffer: vec![0; MAX_DATAGRAM_BYTES],
        })
    }

    fn handle_timers(&mut self, time: Instant) {
        self.server.handle_timeout(time);
        self.carry_out();
        let late = self.clients.iter().filter(|(_, client)| client.end.is_some_and(|end| end <= time));
        for number in late.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.lose(number);
        }
    }

    fn serve(&mut self, number: usize) {
        match self.owners.get(&number).copied() {
            Some(Owner::Listener) => self.accept(),
            Some(Owner::Client(client)) => self.serve_stream(client),
            Some(Owner::Clients) => self.serve_datagrams(number, None),
            Some(Owner::Relay(relay)) => self.serve_datagrams(number, Some(relay)),
            None => {}
        }
    }

    /// Takes datagrams of clients, or of the peers of a relay.
    fn serve_datagrams(&mut self, number: usize, relay: Option<RelayId>) {
        for _ in 0..AT_A_TIME {
            let socket = match relay {
                None => &self.udp,
                Some(relay) => match self.relays.get(&relay) {
                    Some((_, socket)) => socket,
                    None => return,
                },
            };
            match receive(&socket.1, &mut self.buffer) {
                Ok(Some((length, from))) => {
                    let bytes = &self.buffer[..length];
                    match relay {
                        None => self.server.handle_client(now(), RelayClient::Datagrams(from), bytes),
                        Some(relay) => self.server.handle_peer(now(), relay, from, bytes),
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "the relay cannot receive"),
            }
            self.carry_out();
        }
        self.again.push(number);
    }

    fn accept(&mut self) {
        while let Ok((mut stream, from)) = self.listener.accept() {
            if self.clients.len() >= MAX_STREAMS {
                // Who has shown nothing yet makes place, or idle strangers could shut out everybody.
                let strangers = self.clients.iter().filter_map(|(number, one)| Some((one.end?, *number)));
                let Some((_, oldest)) = strangers.min() else { continue };
                self.lose(oldest);
            }
            let (place, number) = (self.next_number, self.next_number as u64);
            self.next_number += 1;
            let interests = Interest::READABLE | Interest::WRITABLE;
            if self.sources.register(&mut stream, place, interests).is_ok() {
                let _ = stream.set_nodelay(true);
                let end = Some(now() + TO_ALLOCATE);
                let (received, sending) = (Vec::new(), VecDeque::new());
                self.clients.insert(number, Client { stream, from, place, received, sending, end });
                self.owners.insert(place, Owner::Client(number));
            }
        }
    }

    fn serve_stream(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let (who, place) = (RelayClient::Stream(number, client.from), client.place);
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
            (Ok(true), _) => self.again.push(place),
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
                    if let Some((number, mut socket)) = self.relays.remove(&relay) {
                        self.owners.remove(&number);
                        self.sources.deregister(&mut socket.1, number);
                    }
                }
            }
        }
    }

    fn open(&mut self, relay: RelayId) -> io::Result<SocketAddr> {
        let (at, known_as) = self.relays_at;
        let socket = UdpSocket::bind(at)?;
        let port = socket.local_addr()?.port();
        let number = self.next_number;
        self.next_number += 1;
        let socket = Socket::new(socket, &self.sources, number)?;
        self.owners.insert(number, Owner::Relay(relay));
        self.relays.insert(relay, (number, socket));
        Ok(SocketAddr::new(known_as, port))
    }

    fn lose(&mut self, number: u64) {
        let Some(mut client) = self.clients.remove(&number) else { return };
        self.owners.remove(&client.place);
        self.sources.deregister(&mut client.stream, client.place);
        self.server.handle_gone(RelayClient::Stream(number, client.from));
        self.carry_out();
    }
}

impl Task for Relaying {
    fn turn(&mut self, now: Instant, ready: &[usize], _woken: bool) -> Turn {
        let mut numbers = std::mem::take(&mut self.again);
        numbers.extend(ready);
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            self.serve(number);
        }
        self.handle_timers(now);
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = self.server.stats();
        if self.again.is_empty() { Turn::Wait } else { Turn::Again }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let strangers = self.clients.values().filter_map(|client| client.end);
        strangers.chain(self.server.poll_timeout()).min()
    }
}

impl Socket {
    fn new(socket: UdpSocket, sources: &Sources, number: usize) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let mut source = mio::net::UdpSocket::from_std(socket.try_clone()?);
        sources.register(&mut source, number, Interest::READABLE)?;
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
    /// Its number among the sources.
    place: usize,
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

/// Numbers of sources.
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
