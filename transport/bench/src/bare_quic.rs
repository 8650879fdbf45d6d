//! quinn-proto alone: two endpoints in one thread hand each other datagrams, with no socket and no runtime between.
//! What it allocates is the least that anything on top of it can.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    ReadError, ServerConfig, StreamEvent, StreamId,
};
use ring::hmac;

use crate::systems::{MESSAGE_BYTES, keys};

/// A client and a server with one stream between them.
pub(crate) struct Pair {
    client: Side,
    server: Side,
}

/// One endpoint with at most one connection and one stream.
struct Side {
    endpoint: Endpoint,
    address: SocketAddr,
    connection: Option<(ConnectionHandle, Connection)>,
    stream: Option<StreamId>,
    /// Where quinn-proto puts what it sends.
    outgoing: Vec<u8>,
    /// Where datagrams lie that came in: cut from a large piece, as a receive buffer would be.
    incoming: BytesMut,
}

/// How much is cut up before the next piece is fetched.
const PIECE_BYTES: usize = 1 << 20;

impl Pair {
    /// Shakes hands and opens the stream.
    pub(crate) fn connect() -> Result<Self> {
        let tls = Arc::new(QuicServerConfig::try_from(keys::server_config()?)?);
        let mut server = Side::new(1, Some(ServerConfig::with_crypto(tls)));
        let tls = Arc::new(QuicClientConfig::try_from(keys::client_config()?)?);
        let mut client = Side::new(2, None);
        let now = Instant::now();
        client.connection =
            Some(client.endpoint.connect(now, ClientConfig::new(tls), server.address, keys::SERVER_NAME)?);

        exchange(&mut client, &mut server)?;
        let (_, connection) = client.connection.as_mut().context("just dialled")?;
        let stream =
            connection.streams().open(Dir::Bi).context("the handshake is over, so a stream is allowed")?;
        client.stream = Some(stream);
        Ok(Self { client, server })
    }

    /// Sends a message there and back, `times` times.
    pub(crate) fn echo(&mut self, times: u64) -> Result<()> {
        let message = [7; MESSAGE_BYTES];
        for _ in 0..times {
            self.client.write(&message)?;
            exchange(&mut self.client, &mut self.server)?;
            let request = self.server.read()?;
            self.server.write(&request)?;
            exchange(&mut self.server, &mut self.client)?;
            ensure!(self.client.read()? == message, "the echo differs");
        }
        Ok(())
    }
}

/// Carries datagrams until both sides have said all they want to say now.
fn exchange(one: &mut Side, other: &mut Side) -> Result<()> {
    while one.send_to(other)? | other.send_to(one)? {}
    Ok(())
}

impl Side {
    fn new(port: u16, config: Option<ServerConfig>) -> Self {
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &[0; 32]);
        let endpoint_config = Arc::new(EndpointConfig::new(Arc::new(reset_key)));
        Self {
            endpoint: Endpoint::new(endpoint_config, config.map(Arc::new), false, None),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            connection: None,
            stream: None,
            outgoing: Vec::with_capacity(2048),
            incoming: BytesMut::new(),
        }
    }

    /// Hands the other side what this one wants to send; true if there was anything.
    fn send_to(&mut self, other: &mut Self) -> Result<bool> {
        let Some((handle, connection)) = self.connection.as_mut() else { return Ok(false) };
        let now = Instant::now();
        if connection.poll_timeout().is_some_and(|due| due <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    self.stream = connection.streams().accept(Dir::Bi)
                }
                Event::ConnectionLost { reason } => bail!("the connection was lost: {reason}"),
                _ => {}
            }
        }
        let mut sent = false;
        while let Some(transmit) = connection.poll_transmit(now, 1, &mut self.outgoing) {
            other.receive(now, self.address, &self.outgoing[..transmit.size])?;
            self.outgoing.clear();
            sent = true;
        }
        Ok(sent)
    }

    fn receive(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Result<()> {
        if self.incoming.capacity() < datagram.len() {
            self.incoming = BytesMut::with_capacity(PIECE_BYTES);
        }
        self.incoming.extend_from_slice(datagram);
        let datagram = self.incoming.split();
        match self.endpoint.handle(now, from, None, None, datagram, &mut self.outgoing) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                let (_, connection) = self.connection.as_mut().context("an event is for a connection")?;
                connection.handle_event(event);
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut self.outgoing, None);
                self.connection = Some(accepted.map_err(|error| error.cause)?);
            }
            Some(DatagramEvent::Response(_)) => bail!("a datagram was answered by the endpoint alone"),
            None => {}
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let (connection, stream) = self.parts()?;
        let written = connection.send_stream(stream).write(bytes)?;
        ensure!(written == bytes.len(), "a message fits the windows");
        Ok(())
    }

    fn read(&mut self) -> Result<[u8; MESSAGE_BYTES]> {
        let (connection, stream) = self.parts()?;
        let mut receiver = connection.recv_stream(stream);
        let mut chunks = receiver.read(true)?;
        let mut message = [0; MESSAGE_BYTES];
        let mut filled = 0;
        loop {
            match chunks.next(MESSAGE_BYTES - filled) {
                Ok(Some(chunk)) => {
                    message[filled..filled + chunk.bytes.len()].copy_from_slice(&chunk.bytes);
                    filled += chunk.bytes.len();
                }
                Ok(None) | Err(ReadError::Blocked) => break,
                Err(error) => return Err(error.into()),
            }
            if filled == MESSAGE_BYTES {
                break;
            }
        }
        // What there is to send in answer goes out with the next exchange.
        let _ = chunks.finalize();
        ensure!(filled == MESSAGE_BYTES, "the message came whole");
        Ok(message)
    }

    fn parts(&mut self) -> Result<(&mut Connection, StreamId)> {
        let (_, connection) = self.connection.as_mut().context("connected")?;
        Ok((connection, self.stream.context("the stream is open")?))
    }
}
