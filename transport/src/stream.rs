use std::{
    io::{self, Read, Write},
    net::Shutdown,
    sync::Arc,
    time::{Duration, Instant},
};

use nat_traversal::PunchedUdpSocket;

use crate::{
    PublicKey,
    admission::ProtocolLabel,
    connection::Connection,
    error::{ExportError, StreamError},
    io::{quic::QuicStream, tcp::TcpConnection},
    path::Path,
    stats::StreamStats,
};

/// One ordered, encrypted, authenticated stream of bytes between two peers. It reads and writes like a
/// [`TcpStream`](std::net::TcpStream), also through `&Stream`, so one thread may read while another writes.
///
/// Calls block; [`set_read_timeout`](Stream::set_read_timeout) and [`set_write_timeout`](Stream::set_write_timeout) bound them, and
/// [`shutdown`](Stream::shutdown) or dropping the transport ends them. Errors are [`io::Error`]s around a [`StreamError`].
///
/// What is written leaves with the call. Over QUIC some of it may leave a millisecond or two later, for few full datagrams cost less than
/// many: the rest of a large write, and a small write while three others at the least on the same connection are being
/// answered. [`flush`](io::Write::flush) sends it at once.
///
/// Dropping it ends it cleanly in the background: everything written arrives, then the peer reads the end.
///
/// ```
/// use std::io::{Read, Write};
/// use transport::{Identity, Listener, Stream, Transport, TransportConfig};
///
/// let server = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let listener = Listener::bind(&server, "tcp://127.0.0.1:0")?;
/// let client = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let endpoint = listener.endpoints()?.next().expect("a bound listener has an endpoint");
///
/// let mut dialled = Stream::direct_connect(&client, endpoint)?;
/// let mut accepted = listener.accept()?;
/// dialled.write_all(b"hello")?;
/// drop(dialled);
/// let mut text = String::new();
/// accepted.read_to_string(&mut text)?;
/// assert_eq!((text.as_str(), accepted.public_key()), ("hello", client.public_key()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Stream {
    reader: Arc<ReadHalf>,
    writer: Arc<WriteHalf>,
}

/// The reading half of a [`Stream`]; see [`Stream::split`].
#[derive(Debug)]
pub struct ReadStream {
    reader: Arc<ReadHalf>,
}

/// The writing half of a [`Stream`]; see [`Stream::split`]. Dropping it sends the end of this direction.
#[derive(Debug)]
pub struct WriteStream {
    writer: Arc<WriteHalf>,
}

/// What carries the stream.
#[derive(Debug, Clone)]
pub(crate) enum Carrier {
    Tcp(Arc<TcpConnection>),
    Quic(Arc<QuicStream>),
}

/// Its last drop ends the reading direction.
#[derive(Debug)]
struct ReadHalf(Carrier);

/// Its last drop ends the writing direction.
#[derive(Debug)]
struct WriteHalf(Carrier);

impl Stream {
    pub(crate) fn from_tcp(connection: Arc<TcpConnection>) -> Self {
        Self::new(Carrier::Tcp(connection))
    }

    pub(crate) fn from_quic(stream: QuicStream) -> Self {
        Self::new(Carrier::Quic(Arc::new(stream)))
    }

    fn new(carrier: Carrier) -> Self {
        Self { reader: Arc::new(ReadHalf(carrier.clone())), writer: Arc::new(WriteHalf(carrier)) }
    }

    pub(crate) fn carrier(&self) -> &Carrier {
        &self.reader.0
    }

    /// Takes the directions apart, for two owners. Dropping one half ends that direction only.
    #[must_use]
    pub fn split(self) -> (ReadStream, WriteStream) {
        (ReadStream { reader: self.reader }, WriteStream { writer: self.writer })
    }

    /// Another handle of the same stream, as [`TcpStream::try_clone`](std::net::TcpStream::try_clone) gives: same position,
    /// same timeouts. The stream ends with its last handle.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn try_clone(&self) -> Result<Self, StreamError> {
        Ok(Self { reader: self.reader.clone(), writer: self.writer.clone() })
    }

    /// The key that the peer has proved.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.carrier().public_key()
    }

    /// What the stream is for, as the dialer said and the acceptor admitted.
    #[must_use]
    pub fn protocol(&self) -> &ProtocolLabel {
        self.carrier().protocol()
    }

    /// Fills `output` with bytes that only the two ends of this stream's connection can know (RFC 8446 §7.5): both get the same for the
    /// same label and context, and no other connection gives them. A signature over them therefore counts on this connection only, and
    /// whoever passes it on to another gains nothing (channel binding, RFC 9266).
    ///
    /// The label says what they are for and begins with `EXPORTER-`, or `EXPERIMENTAL`. Streams that share a QUIC connection share them
    /// too: what must differ between these goes into the context. Does not wait.
    ///
    /// # Errors
    ///
    /// [`ExportError`] for a length that the format has no room for, and for labels that the transport itself uses.
    ///
    /// ```
    /// # use transport::{Identity, Listener, Stream, Transport, TransportConfig};
    /// # let server = Transport::new(Identity::generate(), TransportConfig::default())?;
    /// # let listener = Listener::bind(&server, "tcp://127.0.0.1:0")?;
    /// # let client = Transport::new(Identity::generate(), TransportConfig::default())?;
    /// # let endpoint = listener.endpoints()?.next().expect("a bound listener has an endpoint");
    /// let dialled = Stream::direct_connect(&client, endpoint)?;
    /// let accepted = listener.accept()?;
    /// let (mut here, mut there) = ([0; 32], [0; 32]);
    /// dialled.export_keying_material(&mut here, b"EXPORTER-Channel-Binding", b"")?;
    /// accepted.export_keying_material(&mut there, b"EXPORTER-Channel-Binding", b"")?;
    /// assert_eq!(here, there);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportError> {
        if label.starts_with(RESERVED_LABELS) {
            return Err(ExportError::Reserved);
        }
        let exported = match self.carrier() {
            Carrier::Tcp(connection) => connection.export(output, label, context),
            Carrier::Quic(stream) => stream.export(output, label, context),
        };
        exported.filter(|()| !output.is_empty()).ok_or(ExportError::Size)
    }

    /// How its bytes travel now.
    #[must_use]
    pub fn path(&self) -> Path {
        self.carrier().path()
    }

    /// The connection over QUIC that it shares with others, or has for itself; `None` over TCP.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        match self.carrier() {
            Carrier::Tcp(_) => None,
            Carrier::Quic(stream) => Some(Connection::new(&stream.connection())),
        }
    }

    /// Offers a hole that was punched to the peer of this stream as its path. It is taken if a check says that it reaches the
    /// peer of this very connection, with all streams that share the connection; nothing is lost. The peer follows if this side dialled the
    /// stream; else it must do the same with its end of the hole, which it has from the same punch.
    ///
    /// Returns at once; [`wait_path_change`](Stream::wait_path_change) tells when it is taken. The transport keeps the socket as
    /// long as the connection may use it. [`Rendezvous::improve`](crate::Rendezvous::improve) does all of it.
    ///
    /// # Errors
    ///
    /// Kind `Unsupported` on TCP, else what the system says to the socket.
    pub fn offer_path(&self, punched: PunchedUdpSocket) -> io::Result<()> {
        match self.carrier() {
            Carrier::Tcp(_) => Err(io::ErrorKind::Unsupported.into()),
            Carrier::Quic(stream) => stream.adopt_path(punched.socket, punched.peer_addr),
        }
    }

    /// Blocks until the stream takes another path than `seen`, which [`path`](Stream::path) gave, at most until the deadline; gives
    /// the path at once if it has changed since.
    ///
    /// A stream over QUIC moves when a NAT on the way forgets it, when one side comes to another network, when the present path
    /// dies and another is known, and to a path that was [offered](Stream::offer_path). Nothing is lost by it. One over TCP stays where it is.
    ///
    /// # Errors
    ///
    /// [`StreamError::TimedOut`], [`StreamError::Closed`] with the transport, or what ended the connection.
    pub fn wait_path_change(&self, seen: &Path, deadline: Instant) -> Result<Path, StreamError> {
        self.carrier().wait_path_change(seen.changes, deadline)
    }

    /// What has gone through it so far.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        self.carrier().stats()
    }

    /// Ends one direction or both; calls in progress there return. Ending the writing direction sends the end of the stream:
    /// the peer reads what was written, then 0 bytes. Afterwards reads give 0 bytes, and writes [`StreamError::Closed`].
    ///
    /// # Errors
    ///
    /// What ended the stream before.
    pub fn shutdown(&self, how: Shutdown) -> Result<(), StreamError> {
        self.carrier().shutdown(how)
    }

    /// Sends the end of the stream and blocks until the peer has everything, at most until the deadline. What the peer still
    /// sends is thrown away.
    ///
    /// The peer has what its system or its transport has acknowledged; that its application has read it, only an answer of
    /// the application tells. Over TCP only Linux tells what was acknowledged: elsewhere it blocks until the peer has ended
    /// its own direction too.
    ///
    /// # Errors
    ///
    /// [`StreamError::TimedOut`] when the deadline passed first: what was written is still delivered if the peer lives. Else what
    /// ended the stream before.
    pub fn close(self, deadline: Instant) -> Result<(), StreamError> {
        self.carrier().close(deadline)
    }

    /// Throws the stream away: what was not delivered never will be, and the peer's calls fail. Returns at once.
    ///
    /// Over QUIC the peer learns the code ([`StreamError::Reset`]); TCP carries none, so there it is an
    /// [`StreamError::Io`] of kind `ConnectionReset`.
    pub fn reset(self, code: u32) {
        self.carrier().reset(code);
    }

    /// Bounds every later read: one that has nothing to give by then returns [`StreamError::TimedOut`], and the stream stays
    /// usable. `None`, the default, waits for ever; zero counts as the shortest time the system knows.
    ///
    /// # Errors
    ///
    /// When the operating system refuses.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> Result<(), StreamError> {
        self.carrier().set_read_timeout(timeout)
    }

    /// Bounds every later write. After a timeout each byte was either reported as written, and will be sent in order, or never
    /// sent.
    ///
    /// # Errors
    ///
    /// When the operating system refuses.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> Result<(), StreamError> {
        self.carrier().set_write_timeout(timeout)
    }

    /// Has this stream be at rest in its own way: while nothing is sent, something goes out after each `keep_alive`, and the peer counts as
    /// lost when it was silent for `dead_after`. By default both follow from [`TransportConfig::dead_after`](crate::TransportConfig::dead_after), and
    /// what is sent keeps up the bindings of NATs that forget after 30 s. Whoever knows better can spare packets by it, or for one stream have a
    /// peer noticed sooner. Returns at once.
    ///
    /// Streams that share a QUIC connection share its packets: it holds as long as all of them have said such a thing, by the least of each.
    /// Over TCP it is the system that probes, in whole seconds; after the first probe four more fit into what is left until `dead_after`.
    /// `keep_alive` is taken for a second if it is shorter and for eight hours if it is longer; `dead_after` for a second more than that if it
    /// is shorter, and for a day if it is longer.
    ///
    /// The peer goes by what it was told itself: the one that is to speak sooner speaks, and two that are told the same may both.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use transport::{Identity, Listener, Stream, Transport, TransportConfig};
    /// # let server = Transport::new(Identity::generate(), TransportConfig::default())?;
    /// # let listener = Listener::bind(&server, "quic://127.0.0.1:0")?;
    /// # let client = Transport::new(Identity::generate(), TransportConfig::default())?;
    /// # let endpoint = listener.endpoints()?.next().expect("a bound listener has an endpoint");
    /// let dialled = Stream::direct_connect(&client, endpoint)?;
    /// let accepted = listener.accept()?;
    /// // No NAT between these two: a packet each five minutes will do.
    /// for stream in [&dialled, &accepted] {
    ///     stream.set_keep_alive(Duration::from_secs(300), Duration::from_secs(330));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_keep_alive(&self, keep_alive: Duration, dead_after: Duration) {
        let keep_alive = keep_alive.clamp(SHORTEST_REST, LONGEST_REST);
        let dead_after = dead_after.clamp(keep_alive + SHORTEST_REST, LONGEST_SILENCE);
        self.carrier().set_keep_alive(keep_alive, dead_after);
    }

    /// Makes calls return [`StreamError::WouldBlock`] instead of waiting. A write may then keep the rest of a record, which
    /// `flush` or the next write sends.
    ///
    /// # Errors
    ///
    /// [`StreamError::Busy`] while another thread sits in a call on this stream.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<(), StreamError> {
        self.carrier().set_nonblocking(nonblocking)
    }
}

impl ReadStream {
    /// The key that the peer has proved.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.reader.0.public_key()
    }

    /// Bounds every later read; see [`Stream::set_read_timeout`].
    ///
    /// # Errors
    ///
    /// When the operating system refuses.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> Result<(), StreamError> {
        self.reader.0.set_read_timeout(timeout)
    }

    /// Ends this direction: a read in progress returns 0 bytes, and every later one.
    ///
    /// # Errors
    ///
    /// What ended the stream before.
    pub fn shutdown(&self) -> Result<(), StreamError> {
        self.reader.0.shutdown(Shutdown::Read)
    }
}

impl WriteStream {
    /// The key that the peer has proved.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.writer.0.public_key()
    }

    /// Bounds every later write; see [`Stream::set_write_timeout`].
    ///
    /// # Errors
    ///
    /// When the operating system refuses.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> Result<(), StreamError> {
        self.writer.0.set_write_timeout(timeout)
    }

    /// Sends the end of this direction; see [`Stream::shutdown`].
    ///
    /// # Errors
    ///
    /// What ended the stream before.
    pub fn shutdown(&self) -> Result<(), StreamError> {
        self.writer.0.shutdown(Shutdown::Write)
    }
}

impl Carrier {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(connection) => Ok(connection.read(buffer)?),
            Self::Quic(stream) => Ok(stream.read(buffer)?),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(connection) => Ok(connection.write(bytes)?),
            Self::Quic(stream) => Ok(stream.write(bytes)?),
        }
    }

    fn flush(&self) -> io::Result<()> {
        match self {
            Self::Tcp(connection) => Ok(connection.flush()?),
            Self::Quic(stream) => Ok(stream.flush()?),
        }
    }

    fn public_key(&self) -> PublicKey {
        match self {
            Self::Tcp(connection) => connection.public_key(),
            Self::Quic(stream) => stream.public_key(),
        }
    }

    fn protocol(&self) -> &ProtocolLabel {
        match self {
            Self::Tcp(connection) => connection.protocol(),
            Self::Quic(stream) => stream.protocol(),
        }
    }

    fn wait_path_change(&self, seen: u64, deadline: Instant) -> Result<Path, StreamError> {
        match self {
            Self::Tcp(connection) => Err(connection.wait_idle(deadline)),
            Self::Quic(stream) => stream.wait_path_change(seen, deadline),
        }
    }

    fn path(&self) -> Path {
        match self {
            Self::Tcp(connection) => connection.path(),
            Self::Quic(stream) => stream.path(),
        }
    }

    fn stats(&self) -> StreamStats {
        match self {
            Self::Tcp(connection) => connection.stats(),
            Self::Quic(stream) => stream.stats(),
        }
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), StreamError> {
        match self {
            Self::Tcp(connection) => connection.shutdown(how),
            Self::Quic(stream) => stream.shutdown(how),
        }
    }

    fn close(&self, deadline: Instant) -> Result<(), StreamError> {
        match self {
            Self::Tcp(connection) => connection.close(deadline),
            Self::Quic(stream) => stream.close(deadline),
        }
    }

    fn reset(&self, code: u32) {
        match self {
            Self::Tcp(connection) => connection.reset(),
            Self::Quic(stream) => stream.reset(code),
        }
    }

    fn set_keep_alive(&self, keep_alive: Duration, dead_after: Duration) {
        match self {
            Self::Tcp(connection) => connection.set_keep_alive(keep_alive, dead_after),
            Self::Quic(stream) => stream.set_keep_alive(keep_alive, dead_after),
        }
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> Result<(), StreamError> {
        match self {
            Self::Tcp(connection) => {
                connection.set_read_timeout(timeout);
                Ok(())
            }
            Self::Quic(stream) => stream.set_read_timeout(timeout),
        }
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> Result<(), StreamError> {
        match self {
            Self::Tcp(connection) => {
                connection.set_write_timeout(timeout);
                Ok(())
            }
            Self::Quic(stream) => stream.set_write_timeout(timeout),
        }
    }

    fn set_nonblocking(&self, nonblocking: bool) -> Result<(), StreamError> {
        match self {
            Self::Tcp(connection) => connection.set_nonblocking(nonblocking),
            Self::Quic(stream) => stream.set_nonblocking(nonblocking),
        }
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        match &self.0 {
            Carrier::Tcp(connection) => connection.drop_reader(),
            Carrier::Quic(stream) => stream.drop_reader(),
        }
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        match &self.0 {
            Carrier::Tcp(connection) => connection.drop_writer(),
            Carrier::Quic(stream) => stream.drop_writer(),
        }
    }
}

/// Systems count the silence of TCP in whole seconds.
const SHORTEST_REST: Duration = Duration::from_secs(1);
/// Linux counts to nine hours.
const LONGEST_REST: Duration = Duration::from_secs(8 * 3_600);
/// So that a sum with it is a time that clocks know.
const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 3_600);
/// What the transport exports for itself, such as the keys of path checks.
pub(crate) const RESERVED_LABELS: &[u8] = b"EXPORTER-crust-";

macro_rules! read_through {
    ($($handle:ty),*) => {$(
        impl Read for $handle {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.reader.0.read(buffer)
            }
        }
    )*};
}

macro_rules! write_through {
    ($($handle:ty),*) => {$(
        impl Write for $handle {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.writer.0.write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                self.writer.0.flush()
            }
        }
    )*};
}

read_through!(Stream, &Stream, ReadStream, &ReadStream);
write_through!(Stream, &Stream, WriteStream, &WriteStream);
