//! `transport`, as a user would: blocking streams, a thread for each.

use std::io::{Read, Write};
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use transport::{
    Admission, ConnectOptions, Endpoint, Identity, Listener, Scheme, Stream, Transport, TransportConfig,
};

use super::blocking::Blocking;
use super::keys::{CLIENT_SEED, SERVER_SEED};
use crate::plan::Workload;

/// Dials over the scheme of `S`.
pub(crate) struct Crust<S> {
    transport: Transport,
    endpoint: Endpoint,
    over: PhantomData<S>,
}

impl<S> Crust<S> {
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }
}

/// Which carrier, as a type.
pub(crate) trait Over: Send + Sync + 'static {
    const SCHEME: Scheme;

    /// Settings that both ends share.
    fn config() -> TransportConfig {
        TransportConfig::default()
    }
}

pub(crate) struct Tcp;

impl Over for Tcp {
    const SCHEME: Scheme = Scheme::Tcp;
}

pub(crate) struct Quic;

impl Over for Quic {
    const SCHEME: Scheme = Scheme::Quic;
}

/// With datagrams as large as quinn's default allows, where loopback would take larger ones.
pub(crate) struct QuicCapped;

impl Over for QuicCapped {
    const SCHEME: Scheme = Scheme::Quic;

    fn config() -> TransportConfig {
        TransportConfig::default().max_mtu(1452)
    }
}

impl<S: Over> Blocking for Crust<S> {
    type Stream = Stream;
    type Listener = (Listener, Transport);

    fn listen(workload: Workload) -> Result<(Self::Listener, String)> {
        let transport = Transport::new(Identity::from_seed(SERVER_SEED), server_config::<S>(workload))?;
        let listener = Listener::bind(&transport, (S::SCHEME, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
        let address = listener.local_endpoint().addr().to_string();
        Ok(((listener, transport), address))
    }

    fn accept((listener, _): &Self::Listener) -> Result<Stream> {
        Ok(listener.accept()?)
    }

    fn dialer(address: &str, workload: Workload) -> Result<Self> {
        let transport = Transport::new(Identity::from_seed(CLIENT_SEED), configured::<S>(workload))?;
        let server = Identity::from_seed(SERVER_SEED).public_key();
        Ok(Self {
            transport,
            endpoint: Endpoint::new(S::SCHEME, address.parse()?, server),
            over: PhantomData,
        })
    }

    fn dial(&self) -> Result<Stream> {
        Ok(Stream::connect_with(&self.transport, self.endpoint, &ConnectOptions::new().own_connection())?)
    }

    fn split(stream: Stream) -> Result<(Box<dyn Read + Send>, Box<dyn Write + Send>)> {
        let (reader, writer) = stream.split();
        Ok((Box::new(reader), Box::new(writer)))
    }

    fn dial_shared(&self) -> Result<Stream> {
        Ok(Stream::direct_connect(&self.transport, self.endpoint)?)
    }
}

/// The references give no tickets, so ours gives some only where dialling again is to profit from having dialled before.
fn configured<S: Over>(workload: Workload) -> TransportConfig {
    S::config().resume_sessions(workload == Workload::Again)
}

/// Admits exactly the client, as the references do.
fn server_config<S: Over>(workload: Workload) -> TransportConfig {
    let client = Identity::from_seed(CLIENT_SEED).public_key();
    configured::<S>(workload).admission(Admission::default().allow([client]))
}
