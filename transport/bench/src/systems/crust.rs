//! `transport`, as a user would: blocking streams, a thread for each.

use std::io::{Read, Write};
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;

use anyhow::Result;
use transport::{
    Admission, ConnectOptions, Endpoint, Identity, Listener, Scheme, Stream, Transport, TransportConfig,
};

use super::blocking::Blocking;
use super::keys::{CLIENT_SEED, SERVER_SEED};

/// Dials over the scheme of `S`.
pub(crate) struct Crust<S> {
    transport: Transport,
    /// The same peer, but it remembers no session: it always meets the server for the first time.
    forgetful: OnceLock<Transport>,
    endpoint: Endpoint,
    over: PhantomData<S>,
}

impl<S> Crust<S> {
    pub(crate) fn connect(&self) -> Result<Stream> {
        Ok(Stream::connect_with(&self.transport, self.endpoint, &ConnectOptions::new())?)
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }
}

/// Which carrier, as a type.
pub(crate) trait Over: Send + Sync + 'static {
    const SCHEME: Scheme;
}

pub(crate) struct Tcp;

impl Over for Tcp {
    const SCHEME: Scheme = Scheme::Tcp;
}

/// A stream as the harness reads and writes it.
pub(crate) struct CrustStream {
    stream: Stream,
}

impl<S: Over> Blocking for Crust<S> {
    type Stream = CrustStream;
    type Listener = (Listener, Transport);

    fn listen() -> Result<(Self::Listener, String)> {
        let transport = Transport::new(Identity::from_seed(SERVER_SEED), server_config())?;
        let listener = Listener::bind(&transport, (S::SCHEME, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
        let address = listener.local_endpoint().addr().to_string();
        Ok(((listener, transport), address))
    }

    fn accept((listener, _): &Self::Listener) -> Result<CrustStream> {
        Ok(CrustStream { stream: listener.accept()? })
    }

    fn dialer(address: &str) -> Result<Self> {
        let transport = Transport::new(Identity::from_seed(CLIENT_SEED), TransportConfig::default())?;
        let server = Identity::from_seed(SERVER_SEED).public_key();
        Ok(Self {
            transport,
            forgetful: OnceLock::new(),
            endpoint: Endpoint::new(S::SCHEME, address.parse()?, server),
            over: PhantomData,
        })
    }

    fn dial(&self) -> Result<CrustStream> {
        Ok(CrustStream { stream: self.connect()? })
    }

    fn dial_first(&self) -> Result<CrustStream> {
        let transport = match self.forgetful.get() {
            Some(transport) => transport,
            None => {
                let config = TransportConfig::default().resume_sessions(false);
                let transport = Transport::new(Identity::from_seed(CLIENT_SEED), config)?;
                self.forgetful.get_or_init(|| transport)
            }
        };
        let stream = Stream::direct_connect(transport, self.endpoint)?;
        Ok(CrustStream { stream })
    }
}

impl Read for CrustStream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for CrustStream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// Admits exactly the client, as the references do.
fn server_config() -> TransportConfig {
    let client = Identity::from_seed(CLIENT_SEED).public_key();
    TransportConfig::default().admission(Admission::default().allow([client]))
}
