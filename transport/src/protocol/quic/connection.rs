mod event;
mod rest;
mod silence;
mod streams;
mod unused;

use std::{
    collections::VecDeque,
    fmt,
    io::ErrorKind,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{Connection, ConnectionError, Event, StreamId, VarInt};
use rustls::pki_types::CertificateDer;

use self::unused::KEPT_BY_DIALER;
use super::{
    ToConnection, ToEndpoint,
    gather::Gather,
    receive_budget::FLOOR_BYTES,
    settings::{FIRST_SEND_WINDOW, FIRST_STREAMS, QuicSettings, var_int},
    stream::Stream,
    tail::{Batch, Tail},
    window::Window,
};
use crate::{
    PublicKey,
    protocol::{paths::CheckKeys, raw_key::peer_key, sorted_map::SortedMap},
};

use self::silence::Answers;
pub(crate) use event::{ConnectionEnd, ConnectionFigures, Outgoing, QuicEvent};
pub(crate) use rest::Rest;
use rest::Resting;
use silence::Pauses;

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
    streams: SortedMap<StreamId, Box<Stream>>,
    /// Dials that wait for leave to open a stream: their tickets and prefaces.
    waiting: VecDeque<(u64, Vec<u8>)>,
    events: VecDeque<QuicEvent>,
    window: Window,
    /// The most that one stream may have unread.
    stream_window: u64,
    /// How often the peer has said that the window keeps it from sending, and whether it may have said so again.
    times_blocked: u64,
    may_be_blocked: bool,
    send_window: u64,
    max_streams: u32,
    most_streams: u32,
    last_heard: Instant,
    pauses: Pauses,
    rest: Resting,
    credit: Credit,
    tail: Tail,
    gather: Gather,
    timers: Timers,
    answers: Answers,
    handshake_timeout: Duration,
}

#[derive(Debug)]
enum Role {
    Dialer {
        expected: PublicKey,
        /// How long it stays without streams.
        kept: Duration,
    },
    Acceptor,
}

/// Leave for the peer to send more that it was not told of yet.
#[derive(Debug, Default)]
struct Credit {
    /// The engine has some to tell.
    due: bool,
    /// Bytes read since the last transmission.
    read: u64,
    /// The end of a stream was read, which the peer may wait to hear.
    urgent: bool,
}

/// Our own deadlines; those that only move away are moved when they fire.
#[derive(Debug)]
struct Timers {
    silence: Option<Instant>,
    /// The first stream must be let in by then.
    admission: Option<Instant>,
    /// Closed by then if no stream is opened.
    unused: Option<Instant>,
    /// The first preface awaited must be there by then.
    prefaces: Option<Instant>,
    /// Data came lately: if it stops, the peer is to see where we are.
    stalled: Option<Instant>,
}

impl QuicConnection {
    pub(super) fn dialled(
        now: Instant,
        inner: Connection,
        settings: &QuicSettings,
        expected: PublicKey,
        alone: bool,
    ) -> Self {
        let kept = if alone { Duration::ZERO } else { KEPT_BY_DIALER };
        Self::new(now, inner, settings, Role::Dialer { expected, kept })
    }

    pub(super) fn accepted(now: Instant, inner: Connection, settings: &QuicSettings) -> Self {
        Self::new(now, inner, settings, Role::Acceptor)
    }

    fn new(now: Instant, inner: Connection, settings: &QuicSettings, role: Role) -> Self {
        let rest = settings.rest(matches!(role, Role::Dialer { .. }));
        let admission = matches!(role, Role::Acceptor).then(|| now + settings.handshake_timeout);
        let unused = matches!(role, Role::Dialer { .. }).then(|| now + settings.handshake_timeout);
        let limits = &settings.limits;
        Self {
            inner,
            role,
            peer: None,
            end: None,
            streams: SortedMap::default(),
            waiting: VecDeque::new(),
            events: VecDeque::new(),
            window: Window::new(FLOOR_BYTES, limits.stream_receive_bytes.max(FLOOR_BYTES), now),
            stream_window: limits.stream_receive_bytes,
            times_blocked: 0,
            may_be_blocked: false,
            send_window: FIRST_SEND_WINDOW,
            max_streams: FIRST_STREAMS.min(limits.streams_per_connection),
            most_streams: limits.streams_per_connection,
            last_heard: now,
            pauses: Pauses::new(now),
            rest: Resting::new(now, rest),
            credit: Credit::default(),
            tail: Tail::default(),
            gather: Gather::new(settings.may_gather),
            timers: Timers {
                silence: rest.dead_after.map(|silence| now + silence),
                admission,
                unused,
                prefaces: None,
                stalled: None,
            },
            answers: Answers::default(),
            handshake_timeout: settings.handshake_timeout,
        }
    }

    /// Takes what the endpoint routed here.
    pub(crate) fn handle_input(&mut self, now: Instant, input: ToConnection) {
        self.pauses.ended(now, now.saturating_duration_since(self.last_heard));
        self.last_heard = now;
        self.may_be_blocked = true;
        self.gather.datagram_came(now);
        self.answers.datagram_came();
        self.inner.handle_event(input);
    }

    /// Does whatever is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let due = self.inner.poll_timeout().into_iter().chain(self.tail.due()).chain(self.gather.due());
        if due.min().is_some_and(|due| due <= now) {
            self.release_held();
        }
        self.inner.handle_timeout(now);
        if self.end.is_some() {
            return;
        }
        if self.timers.silence.is_some_and(|due| due <= now) {
            self.check_silence(now);
        }
        if self.end.is_none() && self.rest.is_due(now) {
            self.inner.ping();
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
        if self.timers.stalled.is_some_and(|due| due <= now) {
            self.probe_if_stalled(now);
        }
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        let engine = self.inner.poll_timeout();
        if self.end.is_some() {
            return engine;
        }
        let Timers { silence, admission, unused, prefaces, stalled, .. } = self.timers;
        [silence, admission, unused, prefaces, stalled, self.rest.timer(), self.tail.due(), self.gather.due()]
            .into_iter()
            .flatten()
            .chain(engine)
            .min()
    }

    /// Datagrams to send, written into `buffer`, which is emptied first.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        buffer: &mut Vec<u8>,
    ) -> Option<Outgoing> {
        buffer.clear();
        self.agree_on_rest(now);
        let batch = Batch { segments: max_segments, segment_bytes: self.inner.current_mtu() };
        if self.gather.waits(now) || self.tail.waits(now, batch) {
            return None;
        }
        self.credit = Credit::default();
        let (round_trip, least) = (self.inner.rtt(), self.inner.min_rtt());
        if let Some(more) = self.window.wants(now, round_trip, least) {
            self.events.push_back(QuicEvent::WindowWanted(more));
        }
        let mut transmit = self.inner.poll_transmit(now, max_segments, buffer);
        if transmit.is_none() && self.has_answer(now) {
            transmit = self.inner.poll_transmit(now, max_segments, buffer);
        }
        let Some(transmit) = transmit else {
            self.tail.nothing_to_send();
            return None;
        };
        self.answers.sent();
        self.tail.sent(transmit.size, batch);
        self.rest.sent(now);
        Some(Outgoing { bytes: transmit.size, segment_bytes: transmit.segment_size, ecn: transmit.ecn })
    }

    /// Lets go out what a write may have left for the next one to take along, see [`Tail`].
    pub(crate) fn release_tail(&mut self) {
        self.tail.release();
    }

    /// Lets go out whatever was held back.
    pub(crate) fn release_held(&mut self) {
        self.tail.release();
        self.gather.end();
    }

    /// Whether answers wait for each other.
    pub(crate) fn holds_back(&self) -> bool {
        self.gather.holds()
    }

    /// Whether there is such a rest.
    pub(super) fn holds_tail(&self) -> bool {
        self.tail.due().is_some()
    }

    /// Whether something waits for the next transmission that should go out before anybody waits for the peer.
    pub(crate) fn owes(&self) -> bool {
        !self.gather.holds() && (self.credit.due || self.holds_tail() || self.gather.owes())
    }

    pub(crate) fn poll_endpoint_event(&mut self) -> Option<ToEndpoint> {
        self.inner.poll_endpoint_events()
    }

    pub(crate) fn poll_event(&mut self, now: Instant) -> Option<QuicEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let Some(event) = self.inner.poll() else {
                self.make_room_beside_stalled_streams();
                self.gather.looked(now);
                return self.events.pop_front();
            };
            self.digest(now, event);
        }
    }

    /// One stream that nobody reads must not use up what its neighbours share with it: the window grows until each stream
    /// can be held up by its own.
    fn make_room_beside_stalled_streams(&mut self) {
        // The engine copies all its counters for one, so they are looked at after news only.
        if self.streams.len() < 2 || !std::mem::take(&mut self.may_be_blocked) {
            return;
        }
        let blocked = self.inner.stats().frame_rx.data_blocked;
        if blocked > self.times_blocked {
            self.times_blocked = blocked;
            let most = self.stream_window.saturating_mul(self.streams.len() as u64);
            let more = self.window.bytes().min(most.saturating_sub(self.window.bytes()));
            if more > 0 {
                self.events.push_back(QuicEvent::WindowWanted(more));
            }
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
            (Role::Dialer { expected, .. }, Some(peer)) => peer == *expected,
            (Role::Acceptor, Some(_)) => true,
            (_, None) => false,
        };
        let Some(peer) = peer.filter(|_| right) else {
            self.close_as(now, WRONG_PEER, ConnectionEnd::WrongPeer);
            return;
        };
        self.peer = Some(peer);
        self.rest.begin(now);
        self.events.push_back(QuicEvent::Connected { peer });
        self.open_waiting();
        self.unused(now);
    }

    /// Ends the connection at once; streams that are not acknowledged are lost.
    pub(crate) fn close(&mut self, now: Instant) {
        self.close_as(now, DONE, ConnectionEnd::Closed);
    }

    /// The network says that our datagrams do not arrive.
    pub(crate) fn unreachable(&mut self, now: Instant, reason: ErrorKind) {
        self.close_as(now, DONE, ConnectionEnd::Unreachable(reason));
    }

    fn close_as(&mut self, now: Instant, code: u32, end: ConnectionEnd) {
        if self.end.is_none() {
            self.inner.close(now, VarInt::from_u32(code), Bytes::new());
            self.release_held();
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
            // It has been started anew and knows nothing of this connection.
            ConnectionError::Reset => ConnectionEnd::ClosedByPeer,
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

    /// What proves path checks to be this connection's; there once it is up.
    pub(crate) fn check_keys(&self) -> Option<CheckKeys> {
        let mut exported = [0; CheckKeys::BYTES];
        self.export(&mut exported, CheckKeys::LABEL, &[])?;
        Some(CheckKeys::new(&exported, matches!(self.role, Role::Dialer { .. })))
    }

    /// Fills `output` with bytes that only the two ends of this connection know (RFC 8446 §7.5).
    pub(crate) fn export(&self, output: &mut [u8], label: &[u8], context: &[u8]) -> Option<()> {
        self.inner.crypto_session().export_keying_material(output, label, context).ok()
    }

    /// The datagrams take another way from now on. `same_path`: what was learned of the present one still holds.
    pub(crate) fn path_changed(&mut self, now: Instant, same_path: bool) {
        if !same_path {
            self.inner.path_changed(now);
        }
        // The peer is to see at once where we are, and we that it is there.
        self.resume(now);
    }

    /// When the last datagram came.
    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Whether a datagram has come.
    pub(crate) fn is_answered(&self) -> bool {
        self.inner.stats().udp_rx.datagrams > 0
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
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
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
