use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, Waker};

use crate::{
    config::Driver,
    error::{StartError, StreamError},
    io::{clock, crank::Waited, ready_list::ReadyList},
    stream::{Carrier, Stream},
    transport::{Shared, Transport},
};

/// Many streams that one thread serves: what `select` and `epoll` are to sockets. Of both schemes, up to tens of thousands;
/// an idle TCP stream in it costs some 4 KiB, the kernel's share apart.
///
/// A stream that is added becomes non-blocking: its calls return [`StreamError::WouldBlock`] instead of waiting.
/// [`wait`](StreamSet::wait) tells of each change once. So read a readable stream until it would block, and when a write
/// would block, go on when the stream is writable; bytes that are left unread, or that wait in a half-sent record, are
/// not told of again until something new happens. Over QUIC, answers on several streams of one connection leave together, with
/// the last of them or with the next `wait`.
///
/// ```
/// use std::io::{ErrorKind, Read, Write};
/// use transport::{Identity, Listener, Stream, StreamSet, Transport, TransportConfig};
///
/// let server = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let listener = Listener::bind(&server, "tcp://127.0.0.1:0")?;
/// let client = Transport::new(Identity::generate(), TransportConfig::default())?;
/// let endpoint = listener.endpoints()?.next().expect("a bound listener has an endpoint");
/// let mut dialled = Stream::direct_connect(&client, endpoint)?;
///
/// let mut set = StreamSet::new(&server)?;
/// let key = set.add(listener.accept()?)?;
/// dialled.write_all(b"hello")?;
///
/// let (mut ready, mut text, mut buffer) = (Vec::new(), Vec::new(), [0; 1024]);
/// while text != b"hello" {
///     set.wait(&mut ready, None)?;
///     for one in ready.iter().filter(|one| one.readable) {
///         let mut stream = set.get(one.key).expect("it was not removed");
///         loop {
///             match stream.read(&mut buffer) {
///                 Ok(length) => text.extend_from_slice(&buffer[..length]),
///                 Err(error) if error.kind() == ErrorKind::WouldBlock => break,
///                 Err(error) => return Err(error.into()),
///             }
///         }
///     }
/// }
/// # assert_eq!(set.remove(key).map(|stream| stream.public_key()), Some(client.public_key()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StreamSet {
    shared: Arc<Shared>,
    poll: Poll,
    events: Events,
    list: Arc<ReadyList>,
    members: Vec<Member>,
    free: Vec<usize>,
    /// Members that may have something although nothing will happen: they brought it along.
    unannounced: Vec<usize>,
    /// Members that the poll watches; without any, the set waits by the crank.
    sockets: usize,
    /// Room for what the ready list holds.
    keys: Vec<usize>,
}

/// A place in the set; the generation tells who had it before from who has it now.
struct Member {
    generation: u32,
    stream: Option<Stream>,
}

/// Names a stream in a [`StreamSet`]; never used again after the stream has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    index: usize,
    generation: u32,
}

/// What [`StreamSet::wait`] tells of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Readiness {
    /// Which stream.
    pub key: StreamKey,
    /// A read may give bytes, the end, or an error.
    pub readable: bool,
    /// A write may take bytes.
    pub writable: bool,
}

/// A stream could not be added; here it is back.
#[derive(Debug, thiserror::Error)]
#[error("the stream cannot join the set")]
#[non_exhaustive]
pub struct AddError {
    /// The stream, as it was.
    pub stream: Box<Stream>,
    /// Why: [`StreamError::Busy`] while another thread sits in a call on it, else what the operating system said.
    #[source]
    pub error: StreamError,
}

impl StreamSet {
    /// Makes an empty set for streams of this transport.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the operating system gives no poll.
    pub fn new(transport: &Transport) -> Result<Self, StartError> {
        let shared = transport.shared().clone();
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let list = Arc::new(ReadyList::new(shared.crank.slot(), waker));
        shared.add_set(&list);
        Ok(Self {
            shared,
            poll,
            events: Events::with_capacity(EVENTS_PER_WAIT),
            list,
            members: Vec::new(),
            free: Vec::new(),
            unannounced: Vec::new(),
            sockets: 0,
            keys: Vec::new(),
        })
    }

    /// Adds a stream, which becomes non-blocking. Does not wait.
    ///
    /// # Errors
    ///
    /// [`AddError`], with the stream in it.
    pub fn add(&mut self, stream: Stream) -> Result<StreamKey, AddError> {
        let index = self.free.last().copied().unwrap_or(self.members.len());
        let joined = match stream.carrier() {
            Carrier::Tcp(connection) => connection.join_set(self.poll.registry(), Token(index)),
            Carrier::Quic(quic) => quic.join_set(&self.list, index),
        };
        if let Err(error) = joined {
            return Err(AddError { stream: Box::new(stream), error });
        }
        if self.free.pop().is_none() {
            self.members.push(Member { generation: 0, stream: None });
        }
        self.sockets += usize::from(matches!(stream.carrier(), Carrier::Tcp(_)));
        let member = &mut self.members[index];
        member.stream = Some(stream);
        self.unannounced.push(index);
        Ok(StreamKey { index, generation: member.generation })
    }

    /// Takes a stream out, blocking again; `None` if it has left before.
    pub fn remove(&mut self, key: StreamKey) -> Option<Stream> {
        let member = self.members.get_mut(key.index).filter(|member| member.generation == key.generation)?;
        let stream = member.stream.take()?;
        member.generation = member.generation.wrapping_add(1);
        self.free.push(key.index);
        match stream.carrier() {
            Carrier::Tcp(connection) => {
                self.sockets -= 1;
                connection.leave_set(self.poll.registry());
            }
            Carrier::Quic(quic) => quic.leave_set(),
        }
        Some(stream)
    }

    /// The stream of this key, to be read and written.
    #[must_use]
    pub fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.members.get(key.index).filter(|member| member.generation == key.generation)?.stream.as_ref()
    }

    /// How many streams are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len() - self.free.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Blocks until a stream is ready, a [`SetWaker`] wakes the set, or the deadline passes; `None` waits for ever. Then `ready`
    /// holds every stream that is ready, each once, in no order, and nothing else; after a wake it may be empty.
    ///
    /// # Errors
    ///
    /// [`StreamError::TimedOut`] at the deadline, [`StreamError::Closed`] when the transport is closed; `ready` is empty then.
    pub fn wait(&mut self, ready: &mut Vec<Readiness>, deadline: Option<Instant>) -> Result<(), StreamError> {
        ready.clear();
        let result = self.wait_for(ready, deadline);
        if result.is_err() {
            ready.clear();
        }
        result
    }

    fn wait_for(&mut self, ready: &mut Vec<Readiness>, deadline: Option<Instant>) -> Result<(), StreamError> {
        self.send_what_is_owed();
        loop {
            let mut woken = self.collect_unannounced(ready);
            if self.sockets == 0 {
                woken |= self.collect_listed(ready) | self.list.take_interrupted();
                if self.shared.is_closed() {
                    return Err(StreamError::Closed);
                }
                if woken {
                    return Ok(());
                }
                // Nobody else need run between a datagram and this thread.
                match self.shared.crank.wait(self.list.slot(), deadline) {
                    Waited::Ready => continue,
                    Waited::TimedOut => return Err(StreamError::TimedOut),
                    Waited::Closed => return Err(StreamError::Closed),
                }
            }
            let mut until = deadline;
            if self.must_turn() {
                // Nobody else may serve the streams that have no socket here, so both are looked at in turns.
                if self.shared.crank.turn_once(clock::now() + TURN_TIME) == Waited::Closed {
                    return Err(StreamError::Closed);
                }
                until = Some(clock::now());
            }
            // What is put into the list from now on interrupts the poll; what came before is collected first.
            self.list.set_polling(true);
            woken |=
                self.list.slot().take_ready() | self.list.take_interrupted() | self.collect_listed(ready);
            let polled = if self.shared.is_closed() {
                Err(StreamError::Closed)
            } else {
                self.poll(if woken { Some(clock::now()) } else { until })
            };
            self.list.set_polling(false);
            polled?;
            woken |= self.collect_events(ready);
            if self.shared.is_closed() {
                return Err(StreamError::Closed);
            }
            if woken {
                return Ok(());
            }
            if deadline.is_some_and(|deadline| clock::now() >= deadline) {
                return Err(StreamError::TimedOut);
            }
        }
    }

    /// What the streams of the last wait have left to send, since more might have followed.
    fn send_what_is_owed(&mut self) {
        for &index in &self.keys {
            let member = self.members.get(index).and_then(|member| member.stream.as_ref());
            if let Some(Carrier::Quic(quic)) = member.map(Stream::carrier) {
                quic.set_will_wait();
            }
        }
        self.keys.clear();
    }

    /// Whether there are streams that only the crank serves, and no thread that surely turns it.
    fn must_turn(&self) -> bool {
        self.shared.config.driver == Driver::Caller && self.len() > self.sockets
    }

    /// Wakes this set from another thread.
    #[must_use]
    pub fn waker(&self) -> SetWaker {
        SetWaker { list: self.list.clone() }
    }

    fn poll(&mut self, deadline: Option<Instant>) -> Result<(), StreamError> {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                Err(StreamError::Io { kind: error.kind() })
            }
            _ => Ok(()),
        }
    }

    fn collect_unannounced(&mut self, ready: &mut Vec<Readiness>) -> bool {
        for index in self.unannounced.drain(..) {
            let member = &self.members[index];
            let key = StreamKey { index, generation: member.generation };
            match member.stream.as_ref().map(Stream::carrier) {
                Some(Carrier::Tcp(connection)) if connection.has_buffered() => {
                    ready.push(Readiness { key, readable: true, writable: false });
                }
                // What it reported before it joined is not known, so it is to be tried.
                Some(Carrier::Quic(_)) => ready.push(Readiness { key, readable: true, writable: true }),
                _ => {}
            }
        }
        !ready.is_empty()
    }

    /// What streams without a socket of their own have reported.
    fn collect_listed(&mut self, ready: &mut Vec<Readiness>) -> bool {
        self.list.take(&mut self.keys);
        let before = ready.len();
        for &index in &self.keys {
            let Some(member) = self.members.get(index) else { continue };
            let Some(Carrier::Quic(quic)) = member.stream.as_ref().map(Stream::carrier) else { continue };
            let key = StreamKey { index, generation: member.generation };
            let (readable, writable) = quic.take_readiness();
            match ready[..before].iter_mut().find(|one| one.key == key) {
                Some(one) => {
                    one.readable |= readable;
                    one.writable |= writable;
                }
                // A second entry finds both taken, and so does one of a stream that has left.
                None if readable || writable => ready.push(Readiness { key, readable, writable }),
                None => {}
            }
        }
        ready.len() > before
    }

    /// Tells whether there is a reason to return.
    fn collect_events(&mut self, ready: &mut Vec<Readiness>) -> bool {
        let mut woken = false;
        let announced = ready.len();
        for event in &self.events {
            let Token(index) = event.token();
            if event.token() == WAKER {
                woken = true;
                continue;
            }
            let Some(member) = self.members.get(index) else { continue };
            let Some(Carrier::Tcp(connection)) = member.stream.as_ref().map(Stream::carrier) else {
                continue;
            };
            let readable = event.is_readable() || event.is_read_closed() || event.is_error();
            if readable {
                connection.note_readable(event.is_read_closed() || event.is_error());
            }
            let key = StreamKey { index, generation: member.generation };
            let writable = event.is_writable();
            match ready[..announced].iter_mut().find(|one| one.key == key) {
                Some(one) => *one = Readiness { key, readable: readable | one.readable, writable },
                None => ready.push(Readiness { key, readable, writable }),
            }
        }
        woken || !ready.is_empty()
    }
}

impl fmt::Debug for StreamSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StreamSet").field("streams", &self.len()).finish_non_exhaustive()
    }
}

/// Wakes a [`StreamSet`] from any thread.
#[derive(Debug, Clone)]
pub struct SetWaker {
    list: Arc<ReadyList>,
}

impl SetWaker {
    /// Makes the set's current [`wait`](StreamSet::wait), or else the next one, return. Several wakes before that count as one.
    pub fn wake(&self) {
        self.list.interrupt();
    }
}

/// How long a turn may wait before the sockets are looked at again.
const TURN_TIME: Duration = Duration::from_millis(1);
/// The token of the set's waker, which no member can have.
const WAKER: Token = Token(usize::MAX);
/// One batch; what does not fit comes with the next wait.
const EVENTS_PER_WAIT: usize = 1_024;
