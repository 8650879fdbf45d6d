use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use crossbeam::channel::Receiver;

use crate::{
    Stream, Transport,
    endpoint::{Endpoint, ListenEndpoint, Scheme, ToListenEndpoints},
    error::{AcceptError, BindError},
    io::{
        accept_queue::AcceptQueue, acceptor::TcpAcceptor, lock::Lock as _, quic::QuicIo, slot::Wakes,
        udp::UdpSocket,
    },
    rendezvous::Listening,
    transport::Shared,
};

/// A socket on which streams come in. They are encrypted, authenticated and admitted before `accept` sees them.
///
/// Dropping it closes the socket and ends every `accept`; streams that were accepted stay.
///
/// ```
/// use std::{io::{Read, Write}, thread};
/// use transport::{Identity, Listener, Stream, Transport, TransportConfig};
///
/// let server = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let listener = Listener::bind(&server, "tcp://127.0.0.1:0")?;
/// let endpoint = listener.endpoints()?.next().expect("a bound listener has an endpoint");
///
/// thread::scope(|scope| {
///     scope.spawn(|| -> std::io::Result<()> {
///         let mut stream = listener.accept().map_err(std::io::Error::other)?;
///         stream.write_all(b"hello")
///     });
///     let client = Transport::new(Identity::generate(), TransportConfig::default())?;
///     let mut stream = Stream::direct_connect(&client, endpoint)?;
///     let mut text = String::new();
///     stream.read_to_string(&mut text)?;
///     assert_eq!(text, "hello");
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    queue: Arc<AcceptQueue>,
    socket: Socket,
    local: ListenEndpoint,
}

#[derive(Debug)]
enum Socket {
    Quic(Arc<UdpSocket>),
    Tcp(Arc<TcpAcceptor>),
}

impl Listener {
    /// Listens on the first of the places that works. Blocks only as long as the system calls take.
    ///
    /// # Errors
    ///
    /// [`BindError::Socket`] with the last place's reason, when none works; [`BindError::Parse`] when a text cannot be
    /// read; [`BindError::Closed`] after the transport has closed.
    pub fn bind(transport: &Transport, places: impl ToListenEndpoints) -> Result<Self, BindError> {
        let shared = transport.shared();
        let mut error = BindError::NoEndpoint;
        for endpoint in places.to_listen_endpoints()? {
            if shared.is_closed() {
                return Err(BindError::Closed);
            }
            match Self::bind_one(shared, endpoint) {
                Ok(listener) => return Ok(listener),
                Err(source) => error = BindError::Socket { endpoint, source },
            }
        }
        Err(error)
    }

    fn bind_one(shared: &Arc<Shared>, endpoint: ListenEndpoint) -> io::Result<Self> {
        let queue = AcceptQueue::new(shared.config.limits.accept_queue);
        let (socket, local) = match endpoint.scheme() {
            Scheme::Tcp => {
                let (acceptor, local) = TcpAcceptor::bind(shared, endpoint.addr(), queue.clone())?;
                (Socket::Tcp(acceptor), local)
            }
            Scheme::Quic => {
                let socket = shared.quic.listen(shared, endpoint.addr(), queue.clone())?;
                let local = socket.local();
                (Socket::Quic(socket), local)
            }
        };
        shared.add_queue(&queue);
        let local = ListenEndpoint::new(endpoint.scheme(), local);
        tracing::debug!(%local, "listening");
        Ok(Self { shared: shared.clone(), queue, socket, local })
    }

    /// Blocks until a stream has come in.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Closed`] once the transport is closed, also while waiting.
    pub fn accept(&self) -> Result<Stream, AcceptError> {
        self.queue.accept(&self.shared, None)
    }

    /// Blocks until a stream has come in, at most until the deadline.
    ///
    /// # Errors
    ///
    /// [`AcceptError::TimedOut`] when none has, besides those of [`Listener::accept`].
    pub fn accept_deadline(&self, deadline: Instant) -> Result<Stream, AcceptError> {
        self.queue.accept(&self.shared, Some(deadline))
    }

    /// The streams that come in, until the transport closes; each step blocks like [`Listener::accept`].
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { queue: &self.queue, shared: &self.shared }
    }

    /// The same streams as a channel, to wait for them and for other things in one `select!`. Needs
    /// [`crate::Driver::Background`], or somebody who turns. Disconnected once the listener is closed.
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Stream> {
        self.queue.receiver()
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn local_endpoint(&self) -> ListenEndpoint {
        self.local
    }

    /// Where others on the same networks reach it: an unspecified address stands for one endpoint an interface, loopback
    /// last.
    ///
    /// # Errors
    ///
    /// When the system does not tell its interfaces.
    pub fn endpoints(&self) -> io::Result<EndpointIterator> {
        let (scheme, local) = (self.local.scheme(), self.local.addr());
        let addrs = if local.ip().is_unspecified() { interface_addrs(local)? } else { vec![local] };
        let key = self.shared.public_key;
        let endpoints: Vec<_> = addrs.into_iter().map(|addr| Endpoint::new(scheme, addr, key)).collect();
        Ok(EndpointIterator(endpoints.into_iter()))
    }

    pub(crate) fn tell_socket(&self, listening: &mut Listening) {
        match &self.socket {
            Socket::Quic(socket) => listening.udp.push(socket.clone()),
            Socket::Tcp(_) => listening.tcp.push(self.local.addr()),
        }
    }

    /// Sends the streams to the queue of a set from now on, with those that wait.
    pub(crate) fn join_set(&self, queue: &Arc<AcceptQueue>) {
        match &self.socket {
            Socket::Tcp(acceptor) => acceptor.set_queue(queue.clone()),
            Socket::Quic(socket) => socket.set_queue(Some(queue.clone())),
        }
        let mut wakes = Wakes::default();
        self.queue.move_to(queue, &mut wakes);
        wakes.fire();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        match &self.socket {
            Socket::Tcp(acceptor) => drop(self.shared.sources.hold().remove(acceptor.token())),
            Socket::Quic(socket) => QuicIo::stop_listening(&self.shared, socket),
        }
        let mut wakes = Wakes::default();
        self.queue.close(&mut wakes);
        wakes.fire();
    }
}

/// The streams of one [`Listener`]; see [`Listener::incoming`].
#[derive(Debug)]
pub struct Incoming<'l> {
    queue: &'l AcceptQueue,
    shared: &'l Shared,
}

impl Iterator for Incoming<'_> {
    type Item = Stream;

    fn next(&mut self) -> Option<Stream> {
        self.queue.accept(self.shared, None).ok()
    }
}

/// The endpoints of one [`Listener`]; see [`Listener::endpoints`].
#[derive(Debug)]
pub struct EndpointIterator(std::vec::IntoIter<Endpoint>);

impl Iterator for EndpointIterator {
    type Item = Endpoint;

    fn next(&mut self) -> Option<Endpoint> {
        self.0.next()
    }
}

/// One address of each interface of the family that was bound, loopback last.
fn interface_addrs(bound: SocketAddr) -> io::Result<Vec<SocketAddr>> {
    let mut addrs: Vec<IpAddr> = get_if_addrs::get_if_addrs()?
        .iter()
        .map(get_if_addrs::Interface::ip)
        // A link-local IPv6 address says nothing without the interface's number, which differs from host to host.
        .filter(|ip| {
            ip.is_ipv4() == bound.is_ipv4() && !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
        })
        .collect();
    addrs.sort_by_key(IpAddr::is_loopback);
    addrs.dedup();
    Ok(addrs.into_iter().map(|ip| SocketAddr::new(ip, bound.port())).collect())
}
