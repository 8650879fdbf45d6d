//! rustls over `std::net`, as its own examples do it: a blocking socket in a `StreamOwned`, a thread for each.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::Result;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use super::blocking::Blocking;
use super::keys;
use super::plain::Plain;
use crate::plan::Workload;

pub(crate) struct Tls {
    plain: Plain,
    config: Arc<ClientConfig>,
}

/// The two ends are different types to rustls.
pub(crate) enum TlsStream {
    Dialled(StreamOwned<ClientConnection, TcpStream>),
    Accepted(StreamOwned<ServerConnection, TcpStream>),
}

impl Blocking for Tls {
    type Stream = TlsStream;
    type Listener = (TcpListener, Arc<ServerConfig>);

    fn listen(workload: Workload) -> Result<(Self::Listener, String)> {
        let (listener, address) = Plain::listen(workload)?;
        Ok(((listener, Arc::new(keys::server_config()?)), address))
    }

    fn accept((listener, config): &Self::Listener) -> Result<TlsStream> {
        let connection = ServerConnection::new(Arc::clone(config))?;
        Ok(TlsStream::Accepted(StreamOwned::new(connection, Plain::accept(listener)?)))
    }

    fn dialer(address: &str, workload: Workload) -> Result<Self> {
        Ok(Self { plain: Plain::dialer(address, workload)?, config: Arc::new(keys::client_config()?) })
    }

    fn dial(&self) -> Result<TlsStream> {
        let connection = ClientConnection::new(Arc::clone(&self.config), keys::server_name())?;
        Ok(TlsStream::Dialled(StreamOwned::new(connection, self.plain.dial()?)))
    }
}

impl std::io::Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Dialled(stream) => stream.read(buffer),
            Self::Accepted(stream) => stream.read(buffer),
        }
    }
}

impl std::io::Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Dialled(stream) => stream.write(bytes),
            Self::Accepted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Dialled(stream) => stream.flush(),
            Self::Accepted(stream) => stream.flush(),
        }
    }
}
