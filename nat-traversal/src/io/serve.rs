use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::clock::now;
use super::run::{MAX_DATAGRAM_BYTES, receive, send};
use crate::protocol::stun::Message;
use crate::protocol::{Datagram, Machine as _, SocketIndex, StunServer};

/// Answers STUN over UDP and TCP until it is told to stop.
pub(crate) struct Serving {
    poll: Poll,
    udp: Vec<(UdpSocket, mio::net::UdpSocket)>,
    listeners: Vec<TcpListener>,
    clients: BTreeMap<usize, Client>,
    next_client: usize,
    server: StunServer,
}

impl Serving {
    /// Makes ready to serve at these sockets. The waker of the poll has the token [`STOP`].
    pub(crate) fn new(
        server: StunServer,
        udp: Vec<UdpSocket>,
        listeners: Vec<std::net::TcpListener>,
    ) -> io::Result<(Self, mio::Waker)> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), STOP)?;
        let mut serving = Self {
            poll,
            udp: Vec::new(),
            listeners: Vec::new(),
            clients: BTreeMap::new(),
            next_client: FIRST_CLIENT,
            server,
        };
        for (index, socket) in udp.into_iter().enumerate() {
            socket.set_nonblocking(true)?;
            let mut source = mio::net::UdpSocket::from_std(socket.try_clone()?);
            serving.poll.registry().register(&mut source, Token(index), Interest::READABLE)?;
            serving.udp.push((socket, source));
        }
        for (index, listener) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            let token = Token(FIRST_LISTENER + index);
            serving.poll.registry().register(&mut listener, token, Interest::READABLE)?;
            serving.listeners.push(listener);
        }
        Ok((serving, waker))
    }

    /// Serves until the waker is woken.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(128);
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        loop {
            let next_end = self.clients.values().map(|client| client.end).min();
            let wait = next_end.map(|end| end.saturating_duration_since(now()));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    tracing::warn!(%error, "the hole punch server stops");
                    return;
                }
                _ => {}
            }
            for event in &events {
                match event.token() {
                    STOP => return,
                    Token(index) if index < FIRST_LISTENER => self.answer_datagrams(index, &mut buffer),
                    Token(index) if index < FIRST_CLIENT => self.accept(index - FIRST_LISTENER),
                    Token(index) => self.answer_client(index),
                }
            }
            let time = now();
            self.clients.retain(|_, client| client.end > time);
        }
    }

    fn answer_datagrams(&mut self, index: usize, buffer: &mut [u8]) {
        let socket = SocketIndex(u16::try_from(index).expect("at most four sockets"));
        loop {
            match receive(&self.udp[index].1, buffer) {
                Ok(Some((length, source))) => {
                    self.server.handle_datagram(now(), Datagram { socket, source, bytes: &buffer[..length] });
                }
                Ok(None) => return,
                Err(error) => return tracing::warn!(%error, "cannot receive"),
            }
            while let Some(transmit) = self.server.poll_transmit() {
                send(&self.udp[usize::from(transmit.socket.0)].0, &transmit);
            }
        }
    }

    fn accept(&mut self, index: usize) {
        while let Ok((mut stream, source)) = self.listeners[index].accept() {
            if self.clients.len() >= MAX_CLIENTS {
                // The one that is nearest to its end makes place, or idle strangers could shut out everybody.
                let oldest =
                    self.clients.iter().min_by_key(|(_, client)| client.end).map(|(token, _)| *token);
                oldest.map(|token| self.clients.remove(&token));
            }
            let token = self.next_client;
            self.next_client = self.next_client.wrapping_add(1).max(FIRST_CLIENT);
            if self.poll.registry().register(&mut stream, Token(token), Interest::READABLE).is_ok() {
                let client =
                    Client { stream, source, received: Vec::new(), end: now() + CLIENT_LIFETIME, answers: 0 };
                self.clients.insert(token, client);
            }
        }
    }

    fn answer_client(&mut self, token: usize) {
        if let Some(client) = self.clients.get_mut(&token)
            && client.answer().is_err()
        {
            self.clients.remove(&token);
        }
    }
}

/// One TCP connection.
struct Client {
    stream: TcpStream,
    source: SocketAddr,
    received: Vec<u8>,
    end: Instant,
    answers: u32,
}

impl Client {
    /// Reads all that is there and answers the requests in it; an error ends the connection.
    fn answer(&mut self) -> io::Result<()> {
        let mut chunk = [0; 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.received.extend(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            while let Some(length) = Message::length_in_stream(&self.received).map_err(io::Error::other)? {
                if length > MAX_REQUEST_BYTES || self.answers >= MAX_ANSWERS {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if self.received.len() < length {
                    break;
                }
                let request: Vec<u8> = self.received.drain(..length).collect();
                if let Some(answer) = StunServer::answer_stream(&request, self.source) {
                    self.answers += 1;
                    // Answers of a hundred bytes fit into the send buffer of an idle connection; a client that does
                    // not read them loses the connection.
                    self.stream.write_all(&answer)?;
                }
            }
        }
    }
}

/// Token of the waker that ends the run.
const STOP: Token = Token(usize::MAX);

/// Tokens below are UDP sockets, then listeners, then clients.
const FIRST_LISTENER: usize = 4;
const FIRST_CLIENT: usize = 8;

/// Connections at a time; each lives at most [`CLIENT_LIFETIME`] and costs a few hundred bytes.
const MAX_CLIENTS: usize = 256;

/// Long enough for a client to ask, and to keep the mapping in its NAT while it gives its address to a peer.
const CLIENT_LIFETIME: Duration = Duration::from_secs(30);

/// Answers over one connection.
const MAX_ANSWERS: u32 = 32;

/// Requests are some hundred bytes.
const MAX_REQUEST_BYTES: usize = 2_048;
