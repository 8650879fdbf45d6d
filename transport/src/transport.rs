use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, Weak},
    thread::{self, JoinHandle},
    time::Instant,
};

use mio::{Poll, Registry, Token, Waker};
use ring::signature::Ed25519KeyPair;

use crate::{
    admission::{Admission, ProtocolLabel, Refusal},
    config::{Driver as DriverChoice, TransportConfig},
    connection::Connection,
    error::{StartError, TurnError},
    identity::{Identity, PublicKey, signed_bytes},
    io::{
        accept_queue::{AcceptQueue, MeetingTable, Place},
        alarm::Alarm,
        clock,
        crank::{Crank, Waited},
        driver::{Driver, WAKER},
        later::Later,
        lock::Lock as _,
        path_news::PathNews,
        pool::Pool,
        quic::{ConnectionRef, QuicIo},
        ready_list::ReadyList,
        resolve::Resolver,
        slot::Wakes,
        sources::{Source, Sources},
        tcp::TcpConnection,
    },
    protocol::{
        meetings::Stray,
        pending::Pending,
        preface::{Preface, Purpose, RendezvousTag},
        raw_key::TlsConfigs,
    },
    rendezvous::Listening,
    transport_stats::TransportStats,
};

/// One peer: its key, its sockets, and whoever waits for them. Everything else borrows from it.
///
/// Cloning is cheap and gives the same transport. Dropping the last clone closes listeners and streams, waits for streams
/// that are still ending, at most [`TransportConfig::linger`], and leaves no thread and no socket behind.
///
/// ```
/// use transport::{Identity, Listener, Stream, Transport, TransportConfig};
///
/// let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
/// assert_eq!(transport.stats().streams_open, 0);
/// # Ok::<(), transport::StartError>(())
/// ```
#[derive(Clone)]
pub struct Transport {
    owner: Arc<Owner>,
}

impl Transport {
    /// Starts a transport. Opens no socket yet; with [`crate::Driver::Background`] it starts one thread, `transport-io`.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the operating system gives no poll or no thread.
    pub fn new(identity: Identity, config: TransportConfig) -> Result<Self, StartError> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let alarm = Arc::new(Alarm::new(Waker::new(&registry, WAKER)?));
        let background = config.driver == DriverChoice::Background;
        let quic = QuicIo::new(&identity, &config)?;
        let shared = Arc::new_cyclic(|weak: &Weak<Shared>| Shared {
            public_key: identity.public_key(),
            tls: if config.resume_sessions {
                TlsConfigs::new(&identity)
            } else {
                TlsConfigs::without_resumption(&identity)
            },
            admission: Mutex::new(Arc::new(config.admission.clone())),
            pending: Mutex::new(Pending::new(
                config.limits.pending_handshakes,
                config.limits.pending_handshakes_per_prefix,
            )),
            crank: Crank::new(Driver::new(poll, weak.clone(), alarm.clone()), alarm.clone()),
            registry,
            sources: Mutex::new(Sources::new(alarm.clone())),
            connections: Mutex::default(),
            queues: Mutex::default(),
            labels: Mutex::default(),
            signer: identity.signer(),
            sets: Mutex::default(),
            path_news: PathNews::default(),
            counters: Mutex::default(),
            resolver: Resolver::default(),
            pool: Pool::default(),
            later: Later::default(),
            meetings: Arc::default(),
            quic,
            config,
        });
        let thread = if background { Some(start_background(&shared)?) } else { None };
        Ok(Self { owner: Arc::new(Owner { shared, thread: Mutex::new(thread) }) })
    }

    /// The key by which others know this peer.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.shared().public_key
    }

    /// What has happened so far, and what is open now.
    #[must_use]
    pub fn stats(&self) -> TransportStats {
        self.shared().counters.hold().clone()
    }

    /// Signs a message for one purpose with this peer's key; [`PublicKey::has_signed_for`] judges it. What is signed for one purpose
    /// counts for no other, nor anywhere else where this key signs, such as in TLS.
    #[must_use]
    pub fn sign_for(&self, purpose: &str, message: &[u8]) -> [u8; 64] {
        self.sign(&signed_bytes(purpose, message))
    }

    /// Signs exactly these bytes with this peer's key (Ed25519, RFC 8032), for formats that others have laid down. They must begin
    /// with words that say what they are, as the signature counts wherever somebody presents it; [`Transport::sign_for`] sees to that.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.shared().signer.sign(message);
        signature.as_ref().try_into().expect("signatures of Ed25519 have 64 bytes")
    }

    /// Judges streams that come in from now on by `admission`; those that are open stay.
    pub fn set_admission(&self, admission: Admission) {
        *self.shared().admission.hold() = Arc::new(admission);
    }

    /// Lends the calling thread until something happened on the network or a timer was due, at most until the deadline.
    ///
    /// For [`crate::Driver::Caller`]: a blocking call turns by itself, so this is for times when no thread is in one.
    /// With [`crate::Driver::Background`] it is allowed and not needed.
    ///
    /// # Errors
    ///
    /// [`TurnError::TimedOut`] when nothing happened, [`TurnError::Closed`] when the transport is closed.
    pub fn turn(&self, deadline: Instant) -> Result<(), TurnError> {
        match self.shared().crank.turn_once(deadline) {
            Waited::Ready => Ok(()),
            Waited::TimedOut => Err(TurnError::TimedOut),
            Waited::Closed => Err(TurnError::Closed),
        }
    }

    /// The connections over QUIC with that peer that are up, whoever made them. Looks at all that there are; does not wait.
    #[must_use]
    pub fn connections(&self, peer: PublicKey) -> Vec<Connection> {
        let shared = self.shared();
        let links = shared.quic.connections(peer).into_iter();
        links.map(|link| Connection::new(&ConnectionRef::new(shared, &link, peer))).collect()
    }

    /// Tells the transport that this host has come into another network, and which addresses it has there, loopback apart: `beacon`
    /// has a `NetworkWatch` that notices, and a service of `crust` does it by itself.
    ///
    /// QUIC connections tell their peers at once where they are, check all their paths, and go on over one that works. A
    /// TCP stream whose address is not among these ends with [`StreamError::AddressGone`](crate::StreamError::AddressGone), blocked calls as well, unless there is none
    /// at all: then it may come back. Does not block.
    pub fn network_changed(&self, addresses: &[IpAddr]) {
        self.shared().network_changed(addresses);
    }

    /// Closes everything now, whoever holds clones: blocked calls return, each with its `Closed`. Does not wait.
    pub fn close(&self) {
        self.shared().close();
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Transport").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

/// What the clones of a transport share; its drop is the shutdown.
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let deadline = clock::now() + self.shared.config.linger;
        self.shared.close();
        let thread = self.thread.hold().take();
        // Dropped on the driver's own thread (by a stream's last user there) it cannot join itself.
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the driver of a transport had panicked");
        }
        self.shared.finish_endings(deadline);
    }
}

/// What every handle of a transport shares.
pub(crate) struct Shared {
    pub(crate) config: TransportConfig,
    pub(crate) public_key: PublicKey,
    pub(crate) tls: TlsConfigs,
    pub(crate) crank: Crank<Driver>,
    pub(crate) registry: Registry,
    pub(crate) sources: Mutex<Sources>,
    pub(crate) pending: Mutex<Pending>,
    pub(crate) counters: Mutex<TransportStats>,
    pub(crate) resolver: Resolver,
    pub(crate) pool: Pool,
    pub(crate) later: Later,
    pub(crate) quic: QuicIo,
    pub(crate) meetings: Arc<MeetingTable>,
    admission: Mutex<Arc<Admission>>,
    /// Established TCP streams, to end their blocked calls; keyed by a number of their own.
    connections: Mutex<Connections>,
    /// The queues of all listeners, to close them.
    queues: Mutex<Vec<Weak<AcceptQueue>>>,
    /// The labels that have a listener of their own.
    labels: Mutex<BTreeMap<ProtocolLabel, Label>>,
    signer: Ed25519KeyPair,
    /// The lists by which stream sets wait, to wake them.
    sets: Mutex<Vec<Weak<ReadyList>>>,
    pub(crate) path_news: PathNews,
}

/// Who takes the streams of one label, and whom it admits.
struct Label {
    admission: Arc<Admission>,
    queue: Arc<AcceptQueue>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, Weak<TcpConnection>>,
}

impl Shared {
    pub(crate) fn is_closed(&self) -> bool {
        self.crank.is_closed()
    }

    /// Judges one dialer; if admitted, its stream has a place in the queue.
    pub(crate) fn judge(
        &self,
        peer: &PublicKey,
        preface: &Preface,
        queue: Option<&Arc<AcceptQueue>>,
    ) -> Result<Place, Refusal> {
        let verdict = match preface.purpose {
            Purpose::Rendezvous(tag) => self.meet(tag, peer, preface),
            Purpose::Direct => self.judge_direct(peer, preface, queue),
        };
        match &verdict {
            Ok(_) => tracing::trace!(%peer, "a stream is accepted"),
            Err(reason) => {
                tracing::debug!(%peer, %reason, "a stream was refused");
                self.counters.hold().count_refusal(*reason);
            }
        }
        verdict
    }

    fn judge_direct(
        &self,
        peer: &PublicKey,
        preface: &Preface,
        queue: Option<&Arc<AcceptQueue>>,
    ) -> Result<Place, Refusal> {
        let label = self.label(&preface.label);
        let (admission, queue) = match &label {
            Some((admission, queue)) => (admission.clone(), Some(queue)),
            None => (self.admission.hold().clone(), queue),
        };
        self.admit(peer, preface, &admission)?;
        queue.and_then(AcceptQueue::reserve).ok_or(Refusal::Full)
    }

    fn admit(&self, peer: &PublicKey, preface: &Preface, admission: &Admission) -> Result<(), Refusal> {
        if *peer == self.public_key {
            return Err(Refusal::Myself);
        }
        admission.judge(peer, preface)
    }

    /// A stream that comes for a rendezvous goes to whoever asked for it, and nowhere else.
    fn meet(&self, tag: RendezvousTag, peer: &PublicKey, preface: &Preface) -> Result<Place, Refusal> {
        let arrived = self.meetings.hold().arrived(clock::now(), tag, peer, &preface.label);
        match arrived {
            Ok(queue) => Place::of_rendezvous(&queue, &self.meetings, tag).ok_or(Refusal::Rendezvous),
            Err(stray) => {
                self.counters.hold().count_stray(stray);
                Err(if stray == Stray::OtherLabel { Refusal::Label } else { Refusal::Rendezvous })
            }
        }
    }

    fn label(&self, label: &ProtocolLabel) -> Option<(Arc<Admission>, Arc<AcceptQueue>)> {
        self.labels.hold().get(label).map(|label| (label.admission.clone(), label.queue.clone()))
    }

    /// Sends the streams of a label to a queue of their own; tells whether nobody else takes them.
    pub(crate) fn take_label(
        &self,
        label: &ProtocolLabel,
        admission: Admission,
        queue: &Arc<AcceptQueue>,
    ) -> bool {
        match self.labels.hold().entry(label.clone()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(Label { admission: Arc::new(admission), queue: queue.clone() });
                true
            }
        }
    }

    pub(crate) fn give_label(&self, label: &ProtocolLabel) {
        self.labels.hold().remove(label);
    }

    /// Gives the place of one incoming handshake back, and lets those in who wait for it.
    pub(crate) fn leave_pending(&self, source: IpAddr) {
        self.pending.hold().leave(source);
    }

    /// Whether one of these sources may be able to go on.
    pub(crate) fn has_room_again(&self, again: &[Token]) -> bool {
        !again.is_empty() && self.pending.hold().has_room()
    }

    /// The established TCP streams.
    pub(crate) fn tcp_connections(&self) -> Vec<Arc<TcpConnection>> {
        self.connections.hold().open.values().filter_map(Weak::upgrade).collect()
    }

    /// A number for a stream that is about to `join`.
    pub(crate) fn next_number(&self) -> u64 {
        let mut connections = self.connections.hold();
        connections.next += 1;
        connections.next
    }

    /// Remembers a stream, to end its blocked calls when the transport closes.
    pub(crate) fn join(&self, number: u64, connection: &Arc<TcpConnection>) {
        self.counters.hold().streams_open += 1;
        self.connections.hold().open.insert(number, Arc::downgrade(connection));
        // It may have closed between the handshake and here, and would not hear of it.
        if self.is_closed() {
            connection.interrupt();
        }
    }

    /// Whether a stream that has joined is still there.
    pub(crate) fn is_open(&self, number: u64) -> bool {
        self.connections.hold().open.contains_key(&number)
    }

    /// Where streams come in now.
    pub(crate) fn listening(&self) -> Listening {
        let mut listening = Listening::default();
        let sources = self.sources.hold().all();
        for (_, source) in sources {
            match source {
                Source::Udp(socket) if socket.queue().is_some() => listening.udp.push(socket),
                Source::Acceptor(acceptor) => listening.tcp.extend(acceptor.local()),
                _ => {}
            }
        }
        listening
    }

    /// Where all QUIC listeners' streams go, if that is one queue.
    pub(crate) fn only_queue(&self) -> Option<Arc<AcceptQueue>> {
        let mut queues = self.listening().udp.into_iter().filter_map(|socket| socket.queue());
        let first = queues.next()?;
        queues.all(|other| Arc::ptr_eq(&first, &other)).then_some(first)
    }

    /// Forgets a stream.
    pub(crate) fn leave(&self, number: u64) {
        self.counters.hold().streams_open -= 1;
        self.connections.hold().open.remove(&number);
    }

    pub(crate) fn add_queue(&self, queue: &Arc<AcceptQueue>) {
        let mut queues = self.queues.hold();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(queue));
    }

    pub(crate) fn add_set(&self, list: &Arc<ReadyList>) {
        let mut sets = self.sets.hold();
        sets.retain(|set| set.strong_count() > 0);
        sets.push(Arc::downgrade(list));
    }

    fn close(&self) {
        self.crank.close();
        let mut wakes = Wakes::default();
        let queues: Vec<_> = self.queues.hold().iter().filter_map(Weak::upgrade).collect();
        for queue in queues {
            queue.close(&mut wakes);
        }
        wakes.fire();
        for connection in self.tcp_connections() {
            connection.interrupt();
        }
        let sets: Vec<_> = self.sets.hold().iter().filter_map(Weak::upgrade).collect();
        for set in sets {
            set.interrupt();
        }
    }

    /// Takes everything down that the poll watched; what is still ending gets until the deadline.
    fn finish_endings(self: &Arc<Self>, deadline: Instant) {
        self.finish_quic(deadline);
        let sources = self.sources.hold().all();
        let mut endings = Vec::new();
        for (token, source) in sources {
            match source {
                Source::Ending(ending) => endings.push((token, ending)),
                // Told after the connections over it have said farewell; else the relay keeps the address for ten minutes.
                Source::Udp(socket) if socket.is_relay() => {
                    socket.unwatch(&self.registry);
                    self.sources.hold().remove(token);
                }
                _ => drop(self.sources.hold().remove(token)),
            }
        }
        while endings.iter().any(|(_, ending)| ending.is_unsent()) && clock::now() < deadline {
            self.crank.with_driver(|driver| driver.poll_endings(deadline));
            for (_, ending) in &endings {
                ending.handle_ready(self, false);
            }
        }
        self.later.finish(deadline);
        for (token, ending) in endings {
            ending.finish(deadline);
            self.sources.hold().remove(token);
        }
    }
}

impl Shared {
    fn finish_quic(self: &Arc<Self>, deadline: Instant) {
        let mut wakes = Wakes::default();
        while self.quic.is_sending() && clock::now() < deadline {
            let until = self.quic.next_timer().map_or(deadline, |timer| timer.min(deadline));
            self.crank.with_driver(|driver| driver.poll_endings(until));
            // Not held meanwhile: a stream that comes in looks for its listener there.
            let sources = self.sources.hold().all();
            for (_, source) in sources {
                if let Source::Udp(socket) = source {
                    while self.quic.handle_ready(self, &socket, false, &mut wakes).more {}
                }
            }
            self.quic.handle_timers(self, clock::now(), &mut wakes);
            wakes.fire();
        }
        self.quic.close(self);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

fn start_background(shared: &Arc<Shared>) -> Result<JoinHandle<()>, StartError> {
    let shared = shared.clone();
    let thread =
        thread::Builder::new().name("transport-io".into()).spawn(move || shared.crank.run_background())?;
    Ok(thread)
}
