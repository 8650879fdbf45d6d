mod further;

use std::{
    fmt,
    sync::{Arc, Weak},
};

use crate::{
    ConnectError, ConnectOptions, ExportError, PublicKey, Stream, StreamError,
    io::quic::{ConnectionRef, Link},
    path::Path,
    stream::RESERVED_LABELS,
    transport::Shared,
};

/// A connection over QUIC apart from its streams, to look at its path or to [give it a better one](crate::Rendezvous::improve_connection).
///
/// It does not keep the connection open: that ends some seconds after its last stream at the latest, whoever holds this.
///
/// ```
/// use transport::{Identity, Listener, Stream, Transport, TransportConfig};
///
/// let server = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let listener = Listener::bind(&server, "quic://127.0.0.1:0")?;
/// let client = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let endpoint = listener.endpoints()?.next().expect("a bound listener has an endpoint");
/// let dialled = Stream::direct_connect(&client, endpoint)?;
/// let accepted = listener.accept()?;
///
/// let connection = dialled.connection().expect("it goes over QUIC");
/// assert_eq!(connection.path()?.remote, endpoint.addr());
/// // The peer's end of it, found by what only these two can know.
/// let [theirs] = &server.connections(client.public_key())[..] else { panic!("there is one") };
/// let (mut here, mut there) = ([0; 16], [0; 16]);
/// connection.export_keying_material(&mut here, b"EXPERIMENTAL-which", b"")?;
/// theirs.export_keying_material(&mut there, b"EXPERIMENTAL-which", b"")?;
/// assert_eq!(here, there);
/// # drop(accepted);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    link: Weak<Link>,
    peer: PublicKey,
}

impl Connection {
    pub(crate) fn new(connection: &ConnectionRef) -> Self {
        Self {
            shared: connection.shared().clone(),
            link: Arc::downgrade(connection.link()),
            peer: connection.public_key(),
        }
    }

    /// The connection, unless it is over.
    pub(crate) fn upgrade(&self) -> Result<ConnectionRef, StreamError> {
        let link = self.link.upgrade().ok_or(StreamError::Closed)?;
        let connection = ConnectionRef::new(&self.shared, &link, self.peer);
        connection.end_error().map_or(Ok(connection), Err)
    }

    /// The key that the peer has proved.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.peer
    }

    /// How its bytes travel now.
    ///
    /// # Errors
    ///
    /// What ended the connection, if it is over.
    pub fn path(&self) -> Result<Path, StreamError> {
        Ok(self.upgrade()?.path())
    }

    /// Whether the peer does not answer by the present path, and none is known that works: two checks in a row were not answered, after
    /// half a second in which nothing came. It may be gone, or one of the two hosts is in another network now;
    /// [`Rendezvous::rescue_connection`](crate::Rendezvous::rescue_connection) can find another path until the peer counts as lost. What is not
    /// used is not looked at but for the probes of a connection at rest, so that it may be cut off for some seconds before this tells.
    /// [`PathWatch`](crate::PathWatch) tells when to ask.
    ///
    /// # Errors
    ///
    /// What ended the connection, if it is over.
    pub fn is_cut_off(&self) -> Result<bool, StreamError> {
        Ok(self.upgrade()?.is_cut_off())
    }

    /// Opens one more stream on this connection: one round trip, whatever it took to make the connection. It comes out of the peer's
    /// `accept`, and is judged as any other. A connection that a [rendezvous](crate::Rendezvous::connect) made stays for some seconds after its
    /// last stream, five at the side that dialled it, and serves both peers so, whichever of them has dialled.
    ///
    /// Of the options, protocol, token, network, time limit and interrupter count. Blocks until the peer has answered, at most
    /// [`TransportConfig::connect_timeout`](crate::TransportConfig::connect_timeout).
    ///
    /// ```
    /// use transport::{ConnectOptions, Identity, Listener, Stream, Transport, TransportConfig};
    ///
    /// let server = Transport::new(Identity::generate(), TransportConfig::default())?;
    /// let listener = Listener::bind(&server, "quic://127.0.0.1:0")?;
    /// let client = Transport::new(Identity::generate(), TransportConfig::default())?;
    /// let first = Stream::direct_connect(&client, listener.endpoints()?.next().expect("it is bound"))?;
    /// let connection = first.connection().expect("it goes over QUIC");
    /// let second = connection.connect(&ConnectOptions::new())?;
    /// assert_eq!(second.connection().as_ref(), Some(&connection));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: [`Handshake`](ConnectError::Handshake) if the connection is over or the peer takes no streams there, as when it
    /// listens nowhere; another way may be open all the same.
    pub fn connect(&self, options: &ConnectOptions) -> Result<Stream, ConnectError> {
        further::connect(self, options)
    }

    /// What [`Stream::export_keying_material`](crate::Stream::export_keying_material) gives of any stream of this connection. Of a
    /// connection that is over nothing is left to export.
    ///
    /// # Errors
    ///
    /// [`ExportError`] as there, and [`ExportError::Closed`] when the connection is over.
    pub fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportError> {
        if label.starts_with(RESERVED_LABELS) {
            return Err(ExportError::Reserved);
        }
        let connection = self.upgrade().map_err(|_| ExportError::Closed)?;
        connection.export(output, label, context).filter(|()| !output.is_empty()).ok_or(ExportError::Size)
    }
}

/// Whether they are one connection.
impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        self.link.ptr_eq(&other.link)
    }
}

impl Eq for Connection {}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}
