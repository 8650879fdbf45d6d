use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use mio::Interest;
use mio::net::{TcpListener, TcpStream};

use super::clock::now;
use super::run::{MAX_DATAGRAM_BYTES, receive, send};
use super::worker::{Sources, Task, Turn};
use crate::protocol::stun::Message;
use crate::protocol::{Datagram, Machine as _, SocketIndex, StunServer};

/// Answers STUN over UDP and TCP.
pub(crate) struct Serving {
    sources: Sources,
    udp: Vec<(UdpSocket, mio::net::UdpSocket)>,
    listeners: Vec<TcpListener>,
    clients: BTreeMap<usize, Client>,
    next_client: usize,
    server: StunServer,
    /// UDP sockets with more to read than one turn takes.
    again: Vec<usize>,
    buffer: Vec<u8>,
}

impl Serving {
    /// Serves at these sockets.
    pub(crate) fn new(
        sources: Sources,
        server: StunServer,
        udp: Vec<UdpSocket>,
        listeners: Vec<std::net::TcpListener>,
    ) -> io::Result<Self> {
        let mut serving = Self {
            sources,
            udp: Vec::new(),
            listeners: Vec::new(),
            clients: BTreeMap::new(),
            next_client: FIRST_CLIENT,
            server,
            again: Vec::new(),
            buffer: vec![0; MAX_DATAGRAM_BYTES],
        };
        for (index, socket) in udp.into_iter().enumerate() {
            socket.set_nonblocking(true)?;
            let mut source = mio::net::UdpSocket::from_std(socket.try_clone()?);
            serving.sources.register(&mut source, index, Interest::READABLE)?;
            serving.udp.push((socket, source));
        }
        for (index, listener) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            serving.sources.register(&mut listener, FIRST_LISTENER + index, Interest::READABLE)?;
            serving.listeners.push(listener);
        }
        Ok(serving)
    }

    /// Answers what came to one socket, some of it at a time; true if there may be more.
    fn answer_datagrams(&mut self, index: usize) -> bool {
        let socket = SocketIndex(u16::try_from(index).expect("at most four sockets"));
        for _ in 0..AT_A_TIME {
            match receive(&self.udp[index].1, &mut self.buffer) {
                Ok(Some((length, source))) => {
                    let bytes = &self.buffer[..length];
                    self.server.handle_datagram(now(), Datagram { socket, source, bytes });
                }
                Ok(None) => return false,
                Err(error) => {
                    tracing::warn!(%error, "cannot receive");
                    return false;
                }
            }
            while let Some(transmit) = self.server.poll_transmit() {
                send(&self.udp[usize::from(transmit.socket.0)].0, &transmit);
            }
        }
        true
    }

    fn accept(&mut self, index: usize) {
        while let Ok((mut stream, source)) = self.listeners[index].accept() {
            if self.clients.len() >= MAX_CLIENTS {
                // The one that is nearest to its end makes place, or idle strangers could shut out everybody.
                let oldest =
                    self.clients.iter().min_by_key(|(_, client)| client.end).map(|(number, _)| *number);
                if let Some(number) = oldest {
                    self.lose(number);
                }
            }
            let number = self.next_client;
            self.next_client = self.next_client.wrapping_add(1).max(FIRST_CLIENT);
            if self.sources.register(&mut stream, number, Interest::READABLE).is_ok() {
                let client =
                    Client { stream, source, received: Vec::new(), end: now() + CLIENT_LIFETIME, answers: 0 };
                self.clients.insert(number, client);
            }
        }
    }

    fn answer_client(&mut self, number: usize) {
        if let Some(client) = self.clients.get_mut(&number)
            && client.answer().is_err()
        {
            self.lose(number);
        }
    }

    fn lose(&mut self, number: usize) {
        if let Some(mut client) = self.clients.remove(&number) {
            self.sources.deregister(&mut client.stream, number);
        }
    }
}

impl Task for Serving {
    fn turn(&mut self, now: Instant, ready: &[usize], _woken: bool) -> Turn {
        let mut again = std::mem::take(&mut self.again);
        again.extend(ready.iter().filter(|number| **number < FIRST_LISTENER));
        again.sort_unstable();
        again.dedup();
        again.retain(|index| self.answer_datagrams(*index));
        self.again = again;
        for number in ready.iter().copied().filter(|number| *number >= FIRST_LISTENER) {
            if number < FIRST_CLIENT {
                self.accept(number - FIRST_LISTENER);
            } else {
                self.answer_client(number);
            }
        }
        let late = self.clients.iter().filter(|(_, client)| client.end <= now);
        for number in late.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.lose(number);
        }
        if self.again.is_empty() { Turn::Wait } else { Turn::Again }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.clients.values().map(|client| client.end).min()
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

/// Datagrams answered at one socket before others have their turn.
const AT_A_TIME: usize = 128;

/// Numbers below are UDP sockets, then listeners, then clients.
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
