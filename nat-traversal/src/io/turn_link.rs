use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};

use mio::event::Source as _;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::socket::unspecified_like;
use super::stun_tcp::is_under_way;
use super::tls_client;
use crate::protocol::turn::frame_length;
use crate::{TurnServer, TurnTransport};

/// The way to a TURN server: a connected UDP socket, or a TCP connection with or without TLS. Nothing here waits.
#[derive(Debug)]
pub(crate) enum TurnWay {
    Udp(mio::net::UdpSocket),
    Stream(Box<Stream>),
}

/// What became of the attempt to read a message.
pub(crate) enum Read<'a> {
    Message(&'a [u8]),
    /// There is none for now.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Stream {
    stream: TcpStream,
    established: bool,
    tls: Option<ClientConnection>,
    /// Bytes of the server that are no whole message yet, and how many of the first were taken.
    received: Vec<u8>,
    taken: usize,
    unsent: Vec<u8>,
}

impl TurnWay {
    /// Begins to connect.
    pub(crate) fn connect(server: &TurnServer, address: SocketAddr) -> io::Result<Self> {
        if server.transport() == TurnTransport::Udp {
            let socket = UdpSocket::bind(SocketAddr::new(unspecified_like(address), 0))?;
            socket.connect(address)?;
            socket.set_nonblocking(true)?;
            return Ok(Self::Udp(mio::net::UdpSocket::from_std(socket)));
        }
        let tls = match server.transport() {
            TurnTransport::Tls => Some(tls_client::connect(server)?),
            _ => None,
        };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // Each message is to leave at once.
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if is_under_way(&error) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_std(socket.into());
        let (received, unsent) = (Vec::new(), Vec::new());
        Ok(Self::Stream(Box::new(Stream { stream, established: false, tls, received, taken: 0, unsent })))
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Udp(socket) => socket.register(registry, token, Interest::READABLE),
            Self::Stream(stream) => stream.stream.register(registry, token, both),
        }
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.deregister(registry),
            Self::Stream(stream) => stream.stream.deregister(registry),
        }
    }

    /// Whether a packet would have to wait behind others, so that it is better not sent.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.unsent.len() >= MAX_UNSENT_BYTES)
    }

    /// Sends a message that is in up to three parts. A datagram that does not fit is lost, as datagrams are.
    pub(crate) fn send(&mut self, parts: [&[u8]; 3]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => {
                let slices = parts.map(IoSlice::new);
                match socket.try_io(|| SockRef::from(&*socket).send_vectored(&slices)) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error),
                    Err(error) => {
                        tracing::debug!(%error, "a packet to the relay was not sent");
                        Ok(())
                    }
                    Ok(_) => Ok(()),
                }
            }
            Self::Stream(stream) => stream.send(parts),
        }
    }

    /// Reads the next message. Call until there is nothing.
    pub(crate) fn read<'a>(&'a mut self, buffer: &'a mut [u8]) -> io::Result<Read<'a>> {
        match self {
            Self::Udp(socket) => loop {
                match socket.recv(buffer) {
                    Ok(length) => return Ok(Read::Message(&buffer[..length])),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Nothing),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            },
            Self::Stream(stream) => stream.read(buffer),
        }
    }
}

impl Stream {
    fn send(&mut self, parts: [&[u8]; 3]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            for part in parts {
                tls.writer().write_all(part)?;
            }
        } else {
            parts.iter().for_each(|part| self.unsent.extend(*part));
        }
        self.flush()
    }

    /// Whether the connection stands. Sends what waits, once it does.
    fn flush(&mut self) -> io::Result<()> {
        if !self.is_established()? {
            return Ok(());
        }
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.unsent)?;
            }
        }
        let mut sent = 0;
        let result = loop {
            if sent == self.unsent.len() {
                break Ok(());
            }
            match self.stream.write(&self.unsent[sent..]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.unsent.drain(..sent);
        result
    }

    fn is_established(&mut self) -> io::Result<bool> {
        if !self.established {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => self.established = true,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.established)
    }

    fn read<'a>(&'a mut self, chunk: &mut [u8]) -> io::Result<Read<'a>> {
        self.flush()?;
        self.received.drain(..std::mem::take(&mut self.taken));
        loop {
            if let Some(length) = frame_length(&self.received).map_err(io::Error::other)?
                && self.received.len() >= length
            {
                self.taken = length;
                return Ok(Read::Message(&self.received[..length]));
            }
            if !self.established || !self.receive(chunk)? {
                return Ok(Read::Nothing);
            }
        }
    }

    /// Takes in what has arrived; false if there is nothing for now.
    fn receive(&mut self, chunk: &mut [u8]) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return match self.stream.read(chunk) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.received.extend(&chunk[..length]);
                    Ok(true)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
                Err(error) => Err(error),
            };
        };
        match tls.read_tls(&mut self.stream) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        }
        let state =
            tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        // An alert says why to the other side.
        let arrived = match &state {
            Ok(state) => state.plaintext_bytes_to_read(),
            Err(_) => 0,
        };
        let before = self.received.len();
        self.received.resize(before + arrived, 0);
        tls.reader().read_exact(&mut self.received[before..])?;
        let flushed = self.flush();
        state?;
        flushed?;
        Ok(true)
    }
}

/// What waits to be sent over a stream; beyond, packets are dropped as a full queue drops datagrams. A fifth of a second
/// at 10 Mbit/s.
const MAX_UNSENT_BYTES: usize = 256 * 1024;
