use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    events::{fail_dials, handle_event},
    left::Left,
    stream::Handle,
    table::Input,
    timers::Timers,
    ways::Ways,
};
use crate::{
    PublicKey, StreamError,
    io::{
        clock,
        dial::DialOrder,
        lock::Lock as _,
        slot::Wakes,
        udp::{GivenBack, Mark, StunMessage, UdpSocket, is_too_large},
    },
    protocol::{
        quic::{ConnectionEnd, Outgoing, QuicConnection, QuicHandle, QuicStreamId},
        sorted_map::SortedMap,
    },
    transport::Shared,
};

/// One connection and the way its datagrams take.
pub(crate) struct Link {
    /// Its number within the transport, never reused.
    number: u64,
    handle: QuicHandle,
    kind: Kind,
    /// Something should be sent before anybody waits, as of the last change or read.
    owes: AtomicBool,
    core: Mutex<Core>,
}

/// Who made it, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The peer did; its first datagram came then.
    Incoming { begun: Instant },
    /// We did; further dials to the same endpoint may use it.
    Shared { expected: PublicKey },
    /// We did, for one stream.
    Alone,
}

/// What the lock of a connection guards.
pub(super) struct Core {
    /// The ways that its datagrams may take.
    pub(super) ways: Ways,
    pub(super) connection: Box<QuicConnection>,
    pub(super) streams: SortedMap<QuicStreamId, Box<Handle>>,
    /// Dials that wait for their stream, by ticket.
    pub(super) opening: BTreeMap<u64, DialOrder>,
    /// Dials that wait for the verdict on it.
    pub(super) judging: BTreeMap<QuicStreamId, (u64, DialOrder)>,
    /// Its first stream came of a rendezvous: it serves for further streams of the two, whichever of its sockets they come by.
    pub(super) is_meeting: bool,
    /// Where it stands among the timers.
    armed: Option<Instant>,
    /// What the kernel had no room for.
    unsent: Option<(Outgoing, Vec<u8>)>,
    /// The connection has not been asked for datagrams since something came in.
    owes: bool,
    /// By what its latest datagram is known again, until it is up.
    mark: Mark,
    /// With the last transmission went all there was, so that nothing else waits for leave that came meanwhile.
    all_sent: bool,
    /// It is forgotten; nothing is to be done for it any more.
    gone: bool,
}

/// What work on a locked connection may use.
pub(super) struct Turn<'t> {
    pub(super) shared: &'t Arc<Shared>,
    pub(super) now: Instant,
    /// To be told once no lock is held.
    pub(super) wakes: &'t mut Wakes,
    pub(super) left: &'t mut Left,
}

/// Why a connection is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    Datagrams,
    Timer,
    /// Something is to be sent.
    Flush,
    /// Something was written; what does not fill a batch may wait for the next write.
    Write,
}

impl Link {
    pub(super) fn new(
        number: u64,
        handle: QuicHandle,
        connection: Box<QuicConnection>,
        ways: Ways,
        kind: Kind,
    ) -> Arc<Self> {
        let core = Core {
            ways,
            connection,
            streams: SortedMap::default(),
            opening: BTreeMap::new(),
            judging: BTreeMap::new(),
            is_meeting: false,
            armed: None,
            unsent: None,
            owes: false,
            mark: Mark::default(),
            all_sent: false,
            gone: false,
        };
        Arc::new(Self { number, handle, kind, owes: AtomicBool::new(false), core: Mutex::new(core) })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn handle(&self) -> QuicHandle {
        self.handle
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether anything has come on it.
    pub(super) fn is_answered(&self) -> bool {
        self.core.hold().connection.is_answered()
    }

    /// Nothing that was asked on it is awaited any more.
    pub(super) fn withdraw(&self, shared: &Shared) {
        if let Kind::Shared { expected } = self.kind {
            shared.quic.reunion.hold().withdrawn(expected, self.number);
        }
    }

    /// It has ended.
    pub(super) fn leave_reunion(&self, shared: &Shared) {
        let peer = match self.kind {
            Kind::Shared { expected } => Some(expected),
            Kind::Incoming { .. } => self.look(|core| core.connection.peer()),
            Kind::Alone => None,
        };
        if let Some(peer) = peer {
            shared.quic.reunion.hold().ended(peer, self.number);
        }
    }

    /// Whether something was left that should be sent before a set waits for what the peer says.
    pub(super) fn owes(&self) -> bool {
        self.owes.load(Relaxed)
    }

    pub(super) fn is_sending(&self) -> bool {
        self.core.hold().connection.is_sending()
    }

    /// Looks at the state without changing anything.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Core) -> R) -> R {
        look(&self.core.hold())
    }

    /// Takes in what came on a socket, and sends what follows from it.
    pub(super) fn receive(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        wakes: &mut Wakes,
        socket: &Arc<UdpSocket>,
        inputs: impl Iterator<Item = Input>,
    ) {
        self.change(shared, wakes, Touch::Datagrams, |core, now| {
            for input in inputs {
                core.ways.handle_datagram(now, socket, input.way, input.bytes);
                core.connection.handle_input(now, input.event);
            }
        });
    }

    /// Takes in a path check that says it is of this connection.
    pub(super) fn check(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        wakes: &mut Wakes,
        socket: &Arc<UdpSocket>,
        message: &StunMessage,
    ) {
        self.change(shared, wakes, Touch::Flush, |core, now| {
            core.ways.handle_check(now, socket, message.way, &message.bytes);
        });
    }

    /// The network gave a datagram back, which ends the connection if it was its own and nothing has come from the peer.
    pub(super) fn take_back(self: &Arc<Self>, shared: &Arc<Shared>, wakes: &mut Wakes, back: &GivenBack) {
        self.change(shared, wakes, Touch::Flush, |core, now| {
            if core.connection.peer().is_none() && back.is(&core.mark) {
                tracing::debug!(to = %back.to, reason = %back.reason, "the network gave a dial's datagram back");
                core.connection.unreachable(now, back.reason);
            }
        });
    }

    /// Does what is due, and sends what there is to send.
    pub(crate) fn touch(self: &Arc<Self>, shared: &Arc<Shared>, wakes: &mut Wakes, touch: Touch) {
        self.change(shared, wakes, touch, |core, now| {
            if touch == Touch::Timer {
                core.armed = None;
                let awaited = core.connection.awaited(now);
                core.ways.handle_timeout(now, awaited);
                core.connection.handle_timeout(now);
            }
        });
    }

    /// Changes something under the lock, then does what follows: events, datagrams, timers, and without the lock whatever
    /// concerns others.
    pub(super) fn change<R>(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        wakes: &mut Wakes,
        touch: Touch,
        change: impl FnOnce(&mut Core, Instant) -> R,
    ) -> R {
        let now = clock::now();
        let mut left = Left::default();
        let result = {
            let mut core = self.core.hold();
            let result = change(&mut core, now);
            self.settle(&mut core, touch, &mut Turn { shared, now, wakes, left: &mut left });
            result
        };
        while let Some((inputs, window)) = left.deal(self, shared, wakes) {
            let mut core = self.core.hold();
            for input in inputs {
                core.connection.handle_input(now, input);
            }
            core.connection.grow_window(window);
            self.settle(&mut core, Touch::Flush, &mut Turn { shared, now, wakes, left: &mut left });
        }
        result
    }

    /// The same for a read that found something: nothing follows from it but credit for the peer.
    pub(super) fn read<R>(self: &Arc<Self>, read: impl FnOnce(&mut Core) -> R) -> (R, bool) {
        let mut core = self.core.hold();
        let result = read(&mut core);
        let owes = core.connection.owes_credit();
        if core.owes() {
            self.owes.store(true, Relaxed);
        }
        (result, owes)
    }

    fn settle(self: &Arc<Self>, core: &mut Core, touch: Touch, turn: &mut Turn<'_>) {
        if core.gone {
            return;
        }
        core.ways.settle(&mut core.connection, turn);
        match touch {
            Touch::Datagrams => core.connection.release_tail(),
            Touch::Flush => core.connection.release_held(),
            Touch::Timer | Touch::Write => {}
        }
        let mut told_waiter = false;
        while let Some(event) = core.connection.poll_event(turn.now) {
            told_waiter |= handle_event(self, core, event, turn);
        }
        // Whoever waited for this will read, then write or wait, and our acknowledgement goes along then.
        if touch == Touch::Datagrams && told_waiter && core.all_sent {
            core.owes = true;
        } else {
            self.transmit(core, turn);
        }
        while let Some(event) = core.connection.poll_event(turn.now) {
            handle_event(self, core, event, turn);
        }
        while let Some(event) = core.connection.poll_endpoint_event() {
            core.gone |= event.is_drained();
            turn.left.endpoint_events.push(event);
        }
        if core.gone {
            turn.left.released.extend(core.ways.give_up());
        }
        self.arm(core, turn);
        self.owes.store(core.connection.holds_back() || core.owes(), Relaxed);
    }

    /// Puts it back among the timers, from which it was taken; when it is due.
    pub(super) fn rearm(self: &Arc<Self>, timers: &Mutex<Timers>) -> Option<Instant> {
        let mut core = self.core.hold();
        core.armed = core.due();
        timers.hold().move_to(self, None, core.armed);
        core.armed
    }

    fn arm(self: &Arc<Self>, core: &mut Core, turn: &mut Turn<'_>) {
        let due = core.due();
        let earlier = match (core.armed, due) {
            (None, None) => return,
            (Some(armed), Some(due)) => due < armed,
            (None, Some(_)) => true,
            // Left where it is, unless nothing will ever come: then it must not keep the connection in memory.
            (Some(_), None) => core.gone,
        };
        if earlier {
            turn.shared.quic.timers.hold().move_to(self, core.armed, due);
            core.armed = due;
            turn.left.timer = due;
        }
    }

    /// Sends what there is to send, as far as the kernel takes it.
    fn transmit(self: &Arc<Self>, core: &mut Core, turn: &mut Turn<'_>) {
        (core.owes, core.all_sent) = (false, false);
        if let Some((outgoing, bytes)) = core.unsent.take()
            && !self.send(core, outgoing, &bytes, turn)
        {
            return;
        }
        let mut buffer = turn.shared.quic.buffers.take();
        turn.left.unfinished |= self.transmit_by(core, &mut buffer, turn);
        turn.shared.quic.buffers.give_back(buffer);
    }

    /// Tells whether there is more to send.
    fn transmit_by(self: &Arc<Self>, core: &mut Core, buffer: &mut Vec<u8>, turn: &mut Turn<'_>) -> bool {
        for _ in 0..SENDS_PER_TOUCH {
            let mtu = core.connection.mtu();
            let most = core.ways.socket().max_segments(mtu);
            let Some(outgoing) = core.connection.poll_transmit(turn.now, most, buffer) else { return false };
            if !self.send(core, outgoing, buffer, turn) {
                return false;
            }
            // One short datagram holds all there was, so asking for more would be in vain.
            let short = outgoing.segment_bytes.is_none() && outgoing.bytes < usize::from(mtu);
            if short && core.connection.peer().is_some() {
                core.all_sent = true;
                return false;
            }
        }
        true
    }

    /// Tells whether the kernel took it.
    fn send(
        self: &Arc<Self>,
        core: &mut Core,
        outgoing: Outgoing,
        buffer: &[u8],
        turn: &mut Turn<'_>,
    ) -> bool {
        if core.connection.peer().is_none() {
            core.mark.note(&buffer[..outgoing.bytes]);
        }
        let is_probe =
            outgoing.segment_bytes.is_none() && outgoing.bytes > usize::from(core.connection.mtu());
        if is_probe && core.ways.is_relayed() {
            // A relay is paid by the byte, and left as soon as may be: there the search for a larger datagram ends without an answer.
            return true;
        }
        match core.ways.send(turn.now, outgoing, buffer) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                core.unsent = Some((outgoing, buffer[..outgoing.bytes].to_vec()));
                core.ways.socket().wait_writable(&turn.shared.registry, self);
                turn.shared.crank.alarm().wake_receiver(); // Only the poll tells of room.
                false
            }
            Err(error) if is_too_large(&error) => true,
            Err(error) => {
                tracing::debug!(%error, remote = %core.ways.remote(), "a datagram was not sent");
                // On a connection that was up the network may come back; a dial can be told at once.
                if core.connection.peer().is_none() {
                    fail_dials(core, &error, turn);
                    core.connection.close(turn.now);
                }
                true
            }
        }
    }

    /// Says farewell, once, without waiting for an answer.
    pub(super) fn close(self: &Arc<Self>, shared: &Arc<Shared>, wakes: &mut Wakes) {
        self.change(shared, wakes, Touch::Flush, |core, now| core.connection.close(now));
        let mut core = self.core.hold();
        core.gone = true;
        // A handle of a stream would keep the timers, they this, and so on.
        core.armed = None;
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Core {
    pub(super) fn hold_stream(&mut self, shared: &Shared, stream: QuicStreamId) -> Handle {
        let handle = Handle::new(shared.crank.slot(), shared.crank.slot());
        self.streams.insert(stream, Box::new(handle.clone()));
        handle
    }

    /// When there is something to do though nothing comes.
    fn due(&mut self) -> Option<Instant> {
        if self.gone {
            return None;
        }
        self.connection.poll_timeout().into_iter().chain(self.ways.poll_timeout()).min()
    }

    /// Whether something should be sent before anybody waits.
    pub(super) fn owes(&self) -> bool {
        self.connection.owes() || (self.owes && !self.connection.holds_back())
    }

    pub(super) fn end_error(&self) -> Option<StreamError> {
        self.connection.end().map(ConnectionEnd::stream_error)
    }
}

/// System calls in one go, up to 64 KiB each: others wait for the lock, and for the crank.
const SENDS_PER_TOUCH: usize = 32;
