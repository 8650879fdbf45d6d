use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{Connection, ConnectionError, Dir, Event, StreamEvent, StreamId, VarInt};
use rustls::pki_types::CertificateDer;

use super::{
    QuicEcn, ToConnection, ToEndpoint,
    receive_budget::FLOOR_BYTES,
    settings::{FIRST_SEND_WINDOW, FIRST_STREAMS, QuicSettings, var_int},
    stream::{HeadEvent, ReadEnd, Stream, WriteEnd},
    window::Window,
};
use crate::{
    PublicKey, StreamError,
    protocol::{preface::Preface, raw_key::peer_key, verdict::Verdict},
};

/// One connection with one peer, and its streams.
///
/// ```text
///  Handshaking ──keys compared──► Open ──► Ended: by us, by the peer, by silence, by a broken protocol
///       └──────── wrong key, too slow, refused ─────────┘
/// ```
pub(crate) struct QuicConnection {
    inner: Connection,
    role: Role,
    peer: Option<PublicKey>,
    end: Option<ConnectionEnd>,
    streams: BTreeMap<StreamId, Box<Stream>>,
    /// Dials that wait for leave to open a stream: their tickets and prefaces.
    waiting: VecDeque<(u64, Vec<u8>)>,
    events: VecDeque<QuicEvent>,
    window: Window,
    send_window: u64,
    max_streams: u32,
    most_streams: u32,
    last_heard: Instant,
    owes_credit: bool,
    timers: Timers,
    handshake_timeout: Duration,
}

#[derive(Debug)]
enum Role {
    Dialer { expected: PublicKey },
    Acceptor,
}

/// Our own deadlines; those that only move away are moved when they fire.
#[derive(Debug)]
struct Timers {
    dead_after: Option<Duration>,
    silence: Option<Instant>,
    /// The first stream must be let in by then.
    admission: Option<Instant>,
    /// Closed by then if no stream is opened.
    unused: Option<Instant>,
    /// The first preface awaited must be there by then.
    prefaces: Option<Instant>,
}

/// What happened on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum QuicEvent {
    /// The handshake is over and the peer is who it should be.
    Connected {
        peer: PublicKey,
    },
    /// The stream of that ticket is open, its preface under way.
    Opened {
        ticket: u64,
        stream: StreamId,
    },
    /// A peer opened a stream: judge it and call [`QuicConnection::answer`].
    Preface {
        stream: StreamId,
        preface: Preface,
    },
    /// The peer has judged a stream of ours.
    Verdict {
        stream: StreamId,
        verdict: Verdict,
    },
    Readable(StreamId),
    Writable(StreamId),
    /// All bytes of a finished stream have arrived, or never will.
    Acknowledged(StreamId),
    /// The reader keeps up: the window could be larger by so much.
    WindowWanted(u64),
    /// Nothing more will happen; every stream's calls fail with this.
    Ended(ConnectionEnd),
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// We closed it.
    Closed,
    /// The peer closed it in good order.
    ClosedByPeer,
    /// The peer showed another key than it should have.
    WrongPeer,
    /// Nothing came from the peer for so long.
    Silent(Duration),
    /// What came is no QUIC, or no TLS, or not ours.
    Broken(String),
}

impl ConnectionEnd {
    /// What calls on its streams report.
    pub(crate) fn stream_error(&self) -> StreamError {
        match self {
            Self::Closed => StreamError::Closed,
            Self::ClosedByPeer => StreamError::UnexpectedEof,
            Self::WrongPeer => StreamError::Protocol { reason: "another key than expected".to_owned() },
            Self::Silent(silent_for) => StreamError::PeerLost { silent_for: *silent_for },
            Self::Broken(reason) => StreamError::Protocol { reason: reason.clone() },
        }
    }
}

/// Datagrams to send, all of one size but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) bytes: usize,
    pub(crate) segment_bytes: Option<usize>,
    pub(crate) ecn: Option<QuicEcn>,
}

/// What is known of a connection's path, for people.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ConnectionFigures {
    pub(crate) round_trip: Duration,
    pub(crate) mtu: u16,
    pub(crate) sent_packets: u64,
    pub(crate) lost_packets: u64,
    pub(crate) sent_datagrams: u64,
    pub(crate) received_datagrams: u64,
}

impl QuicConnection {
    pub(super) fn dialled(
        now: Instant,
        inner: Connection,
        settings: &QuicSettings,
        expected: PublicKey,
    ) -> Self {
        Self::new(now, inner, settings, Role::Dialer { expected })
    }

    pub(super) fn accepted(now: Instant, inner: Connection, settings: &QuicSettings) -> Self {
        Self::new(now, inner, settings, Role::Acceptor)
    }

    fn new(now: Instant, inner: Connection, settings: &QuicSettings, role: Role) -> Self {
        let dead_after = settings.dead_after;
        let admission = matches!(role, Role::Acceptor).then(|| now + settings.handshake_timeout);
        let unused = matches!(role, Role::Dialer { .. }).then(|| now + settings.handshake_timeout);
        let limits = &settings.limits;
        Self {
            inner,
            role,
            peer: None,
            end: None,
            streams: BTreeMap::new(),
            waiting: VecDeque::new(),
            events: VecDeque::new(),
            window: Window::new(FLOOR_BYTES, limits.stream_receive_bytes.max(FLOOR_BYTES), now),
            send_window: FIRST_SEND_WINDOW,
            max_streams: FIRST_STREAMS.min(limits.streams_per_connection),
            most_streams: limits.streams_per_connection,
            last_heard: now,
            owes_credit: false,
            timers: Timers {
                dead_after,
                silence: dead_after.map(|silence| now + silence),
                admission,
                unused,
                prefaces: None,
            },
            handshake_timeout: settings.handshake_timeout,
        }
    }

    /// Takes what the endpoint routed here.
    pub(crate) fn handle_input(&mut self, now: Instant, input: ToConnection) {
        self.last_heard = now;
        self.inner.handle_event(input);
    }

    /// Does whatever is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
        if self.end.is_some() {
            return;
        }
        if self.timers.silence.is_some_and(|due| due <= now) {
            self.check_silence(now);
        }
        if self.timers.admission.is_some_and(|due| due <= now) {
            tracing::debug!("a peer did not get to its first stream in time");
            self.close_as(now, TOO_SLOW, ConnectionEnd::Closed);
        }
        if self.timers.unused.is_some_and(|due| due <= now) {
            self.close(now);
        }
        if self.timers.prefaces.is_some_and(|due| due <= now) {
            self.drop_slow_prefaces(now);
        }
    }

    fn check_silence(&mut self, now: Instant) {
        let Some(allowed) = self.timers.dead_after else { return };
        let silent_for = now.saturating_duration_since(self.last_heard);
        if silent_for >= allowed {
            self.close_as(now, LOST, ConnectionEnd::Silent(silent_for));
        } else {
            self.timers.silence = Some(self.last_heard + allowed);
        }
    }

    fn drop_slow_prefaces(&mut self, now: Instant) {
        let slow = |stream: &Stream| stream.deadline().is_some_and(|deadline| deadline <= now);
        for stream in self.streams.values_mut().filter(|stream| slow(stream)) {
            stream.reset(&mut self.inner, TOO_SLOW);
            stream.stop(&mut self.inner, TOO_SLOW);
        }
        self.timers.prefaces = self.streams.values().filter_map(|stream| stream.deadline()).min();
        self.forget_streams(now);
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        let engine = self.inner.poll_timeout();
        if self.end.is_some() {
            return engine;
        }
        let Timers { silence, admission, unused, prefaces, .. } = self.timers;
        [silence, admission, unused, prefaces].into_iter().flatten().chain(engine).min()
    }

    /// Datagrams to send, written into `buffer`, which is emptied first.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        buffer: &mut Vec<u8>,
    ) -> Option<Outgoing> {
        buffer.clear();
        self.owes_credit = false;
        let round_trip = self.inner.rtt();
        if let Some(more) = self.window.wants(now, round_trip) {
            self.events.push_back(QuicEvent::WindowWanted(more));
        }
        let transmit = self.inner.poll_transmit(now, max_segments, buffer)?;
        Some(Outgoing { bytes: transmit.size, segment_bytes: transmit.segment_size, ecn: transmit.ecn })
    }

    pub(crate) fn poll_endpoint_event(&mut self) -> Option<ToEndpoint> {
        self.inner.poll_endpoint_events()
    }

    pub(crate) fn poll_event(&mut self, now: Instant) -> Option<QuicEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let event = self.inner.poll()?;
            self.digest(now, event);
        }
    }

    fn digest(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected => self.connected(now),
            Event::ConnectionLost { reason } => {
                let end = self.end_of(now, &reason);
                self.ended(end);
            }
            Event::Stream(event) => self.digest_stream(now, event),
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    fn connected(&mut self, now: Instant) {
        let identity = self.inner.crypto_session().peer_identity();
        let presented =
            identity.and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
        let peer = presented.and_then(|keys| peer_key(&keys));
        let right = match (&self.role, peer) {
            // Resumed sessions skip the verifier, so it is compared here, each time.
            (Role::Dialer { expected }, Some(peer)) => peer == *expected,
            (Role::Acceptor, Some(_)) => true,
            (_, None) => false,
        };
        let Some(peer) = peer.filter(|_| right) else {
            self.close_as(now, WRONG_PEER, ConnectionEnd::WrongPeer);
            return;
        };
        self.peer = Some(peer);
        self.events.push_back(QuicEvent::Connected { peer });
        self.open_waiting();
        self.unused(now);
    }

    fn digest_stream(&mut self, now: Instant, event: StreamEvent) {
        match event {
            StreamEvent::Opened { .. } => {
                while let Some(id) = self.inner.streams().accept(Dir::Bi) {
                    let deadline = now + self.handshake_timeout;
                    self.streams.insert(id, Box::new(Stream::accepted(id, deadline)));
                    self.timers.prefaces.get_or_insert(deadline);
                    self.timers.unused = None;
                    self.readable(id);
                }
                self.allow_more_streams();
            }
            StreamEvent::Available { .. } => self.open_waiting(),
            StreamEvent::Readable { id } => self.readable(id),
            StreamEvent::Writable { id } => {
                let Some(stream) = self.streams.get_mut(&id) else { return };
                if stream.send_head(&mut self.inner) {
                    self.events.push_back(QuicEvent::Writable(id));
                }
            }
            StreamEvent::Finished { id } => {
                let Some(stream) = self.streams.get_mut(&id) else { return };
                stream.acknowledged();
                self.events.push_back(QuicEvent::Acknowledged(id));
                self.forget_streams(now);
            }
            StreamEvent::Stopped { id, error_code } => {
                let Some(stream) = self.streams.get_mut(&id) else { return };
                stream.stopped(&mut self.inner, error_code);
                self.events.push_back(QuicEvent::Acknowledged(id));
                self.events.push_back(QuicEvent::Writable(id));
                self.forget_streams(now);
            }
        }
    }

    fn readable(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.read_head(&mut self.inner) {
            Some(HeadEvent::Preface(preface)) => {
                self.events.push_back(QuicEvent::Preface { stream: id, preface });
            }
            Some(HeadEvent::Verdict(verdict)) => {
                self.events.push_back(QuicEvent::Verdict { stream: id, verdict });
            }
            None => {}
        }
        if !stream.told_readable {
            stream.told_readable = true;
            self.events.push_back(QuicEvent::Readable(id));
        }
    }

    /// Opens a stream that begins with `preface`, now or when the peer allows one more; [`QuicEvent::Opened`] tells.
    pub(crate) fn open(&mut self, ticket: u64, preface: &Preface) {
        self.timers.unused = None;
        self.waiting.push_back((ticket, preface.encode()));
        if self.peer.is_some() {
            self.open_waiting();
        }
    }

    /// Takes an `open` back. A stream that is open already is the caller's to throw away.
    pub(crate) fn cancel_open(&mut self, now: Instant, ticket: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        self.unused(now);
    }

    fn open_waiting(&mut self) {
        while !self.waiting.is_empty() {
            let Some(id) = self.inner.streams().open(Dir::Bi) else { return };
            let Some((ticket, preface)) = self.waiting.pop_front() else { return };
            let mut stream = Box::new(Stream::dialled(id, preface));
            stream.send_head(&mut self.inner);
            self.streams.insert(id, stream);
            self.events.push_back(QuicEvent::Opened { ticket, stream: id });
        }
    }

    /// Sends the verdict on a stream whose preface was reported.
    pub(crate) fn answer(&mut self, now: Instant, stream: StreamId, verdict: Verdict) {
        if verdict == Verdict::Accepted {
            self.timers.admission = None;
        }
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.answer(&mut self.inner, verdict);
        }
        self.forget_streams(now);
    }

    /// Reads what is there. `Ok(0)` is the peer's end, if there is room in `buffer`.
    pub(crate) fn read(&mut self, stream: StreamId, buffer: &mut [u8]) -> Result<usize, ReadEnd> {
        let Some(stream) = self.streams.get_mut(&stream) else {
            return Err(ReadEnd::Failed(StreamError::Closed));
        };
        match stream.read(&mut self.inner, buffer) {
            Ok(read) => {
                self.window.consume(read.bytes);
                self.owes_credit |= read.credit_due;
                if read.ended {
                    // Its sender may wait to hear that everything arrived; an acknowledgement alone would be held back.
                    self.inner.ping();
                    self.owes_credit = true;
                }
                Ok(read.bytes)
            }
            Err(ReadEnd::Blocked) => match &self.end {
                Some(end) => Err(ReadEnd::Failed(end.stream_error())),
                None => Err(ReadEnd::Blocked),
            },
            Err(failed) => Err(failed),
        }
    }

    /// Whether the peer should soon be told that it may send more.
    pub(crate) fn owes_credit(&self) -> bool {
        self.owes_credit
    }

    /// Takes as much as there is room for.
    pub(crate) fn write(&mut self, stream: StreamId, bytes: &[u8]) -> Result<usize, WriteEnd> {
        if let Some(end) = &self.end {
            return Err(WriteEnd::Failed(end.stream_error()));
        }
        let Some(stream) = self.streams.get_mut(&stream) else {
            return Err(WriteEnd::Failed(StreamError::Closed));
        };
        let result = stream.write(&mut self.inner, bytes);
        if result != Err(WriteEnd::Blocked) {
            return result;
        }
        // Room for twice what the path carries: what is on the way, and what follows it.
        let wanted = self.inner.congestion_state().window().saturating_mul(2).min(MAX_SEND_WINDOW);
        if wanted <= self.send_window {
            return result;
        }
        self.send_window = wanted;
        self.inner.set_send_window(wanted);
        stream.write(&mut self.inner, bytes)
    }

    /// Sends the end of our direction after all that was written.
    pub(crate) fn finish(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.finish(&mut self.inner);
        }
    }

    /// Whether the peer has acknowledged everything up to the end; `None`: not yet.
    pub(crate) fn acknowledged(&self, stream: StreamId) -> Option<Result<(), StreamError>> {
        let known = self.streams.get(&stream).and_then(|stream| stream.is_acknowledged());
        known.or_else(|| self.end.as_ref().map(|end| Err(end.stream_error())))
    }

    /// Throws both directions away.
    pub(crate) fn reset(&mut self, now: Instant, stream: StreamId, code: u32) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.reset(&mut self.inner, code);
            stream.stop(&mut self.inner, code);
        }
        self.forget_streams(now);
    }

    /// Nobody holds the stream any more: ends it cleanly, and forgets it once the peer has everything.
    pub(crate) fn release(&mut self, now: Instant, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.finish(&mut self.inner);
            stream.stop(&mut self.inner, DONE);
            stream.held = false;
        }
        self.forget_streams(now);
    }

    /// Stops listening; what the peer still sends is dropped.
    pub(crate) fn stop(&mut self, now: Instant, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.stop(&mut self.inner, DONE);
        }
        self.forget_streams(now);
    }

    /// Ends the connection at once; streams that are not acknowledged are lost.
    pub(crate) fn close(&mut self, now: Instant) {
        self.close_as(now, DONE, ConnectionEnd::Closed);
    }

    fn close_as(&mut self, now: Instant, code: u32, end: ConnectionEnd) {
        if self.end.is_none() {
            self.inner.close(now, VarInt::from_u32(code), Bytes::new());
            self.ended(end);
        }
    }

    fn ended(&mut self, end: ConnectionEnd) {
        if self.end.is_none() {
            self.end = Some(end.clone());
            self.events.push_back(QuicEvent::Ended(end));
        }
    }

    fn end_of(&self, now: Instant, reason: &ConnectionError) -> ConnectionEnd {
        match reason {
            ConnectionError::ApplicationClosed(close) => match u32::try_from(close.error_code.into_inner()) {
                Ok(TOO_SLOW) => ConnectionEnd::Broken("too slow for the peer".to_owned()),
                _ => ConnectionEnd::ClosedByPeer,
            },
            ConnectionError::TimedOut => {
                ConnectionEnd::Silent(now.saturating_duration_since(self.last_heard))
            }
            // The verifier refuses every key but the expected one, before there is an identity to compare.
            ConnectionError::TransportError(error)
                if u64::from(error.code) == ACCESS_DENIED && matches!(self.role, Role::Dialer { .. }) =>
            {
                ConnectionEnd::WrongPeer
            }
            ConnectionError::LocallyClosed => ConnectionEnd::Closed,
            other => ConnectionEnd::Broken(other.to_string()),
        }
    }

    /// Reports an end that was reported before once more, to whoever came after it.
    pub(crate) fn repeat_end(&mut self) {
        if let Some(end) = &self.end {
            self.events.push_back(QuicEvent::Ended(end.clone()));
        }
    }

    /// More bytes may be in flight towards us.
    pub(crate) fn grow_window(&mut self, bytes: u64) {
        if bytes > 0 {
            self.window.grow(bytes);
            self.inner.set_receive_window(var_int(self.window.bytes()));
        }
    }

    fn allow_more_streams(&mut self) {
        let open = self.inner.streams().remote_open_streams(Dir::Bi);
        if open * 4 >= u64::from(self.max_streams) * 3 && self.max_streams < self.most_streams {
            self.max_streams = self.max_streams.saturating_mul(2).min(self.most_streams);
            self.inner.set_max_concurrent_streams(Dir::Bi, VarInt::from_u32(self.max_streams));
        }
    }

    fn forget_streams(&mut self, now: Instant) {
        let before = self.streams.len();
        self.streams.retain(|_, stream| stream.held || !stream.is_over());
        if self.streams.len() != before {
            self.unused(now);
        }
    }

    /// Begins to count the time without streams.
    fn unused(&mut self, now: Instant) {
        let used = !self.streams.is_empty() || !self.waiting.is_empty();
        self.timers.unused = (!used).then(|| {
            now + match self.role {
                Role::Dialer { .. } => KEPT_BY_DIALER,
                Role::Acceptor => KEPT_BY_ACCEPTOR,
            }
        });
    }

    /// Whether bytes or ends of streams are still to be acknowledged.
    pub(crate) fn is_sending(&self) -> bool {
        self.end.is_none() && self.streams.values().any(|stream| stream.is_sending())
    }

    pub(crate) fn end(&self) -> Option<&ConnectionEnd> {
        self.end.as_ref()
    }

    /// The peer's key, once it is shown and right.
    pub(crate) fn peer(&self) -> Option<PublicKey> {
        self.peer
    }

    /// The size of the largest datagrams sent now.
    pub(crate) fn mtu(&self) -> u16 {
        self.inner.current_mtu()
    }

    pub(crate) fn figures(&self) -> ConnectionFigures {
        let stats = self.inner.stats();
        ConnectionFigures {
            round_trip: stats.path.rtt,
            mtu: stats.path.current_mtu,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            sent_datagrams: stats.udp_tx.datagrams,
            received_datagrams: stats.udp_rx.datagrams,
        }
    }
}

impl fmt::Debug for QuicConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("QuicConnection")
            .field("role", &self.role)
            .field("peer", &self.peer)
            .field("end", &self.end)
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}

// Codes of CONNECTION_CLOSE, RESET_STREAM and STOP_SENDING. `crate` applications give codes of their own to `reset`.
const DONE: u32 = 0;
const WRONG_PEER: u32 = 2;
const TOO_SLOW: u32 = 3;
const LOST: u32 = 4;
/// RFC 9001 §4.8: 0x100 + the alert access_denied (RFC 8446 §6), which our verifier raises.
const ACCESS_DENIED: u64 = 0x131;
/// A next dial to the same peer within this time needs no handshake.
const KEPT_BY_DIALER: Duration = Duration::from_secs(5);
/// Longer than the dialer's, so that it is the dialer who closes and no stream is opened on a closing connection.
const KEPT_BY_ACCEPTOR: Duration = Duration::from_secs(15);
/// What one writer can make us hold: twice 1 Gbit/s at 100 ms.
const MAX_SEND_WINDOW: u64 = 25_000_000;
