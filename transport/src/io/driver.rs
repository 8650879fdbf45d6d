//! One turn of the crank: what became ready, what is due.

use std::{
    io,
    sync::{Arc, Weak},
    time::Instant,
};

use mio::{Events, Poll, Token};

use super::{
    alarm::Alarm,
    clock,
    crank::{Sleep, Turn},
    direct::{Direct, NEAREST_TIMER},
    later::Later,
    lock::Lock as _,
    slot::Wakes,
    sources::Source,
    udp::UdpSocket,
};
use crate::transport::Shared;

/// The poll and what only its holder needs.
pub(crate) struct Driver {
    poll: Poll,
    events: Events,
    shared: Weak<Shared>,
    wakes: Wakes,
    /// Listeners that have more to accept than there is room for: looked at again without an event, once there is.
    again: Vec<Token>,
    /// Sockets that have more to give than one turn takes.
    unread: Vec<Token>,
    alarm: Arc<Alarm>,
    direct: Direct,
    /// What this turn has brought so far.
    datagrams: usize,
    other_events: bool,
    /// When something is due that was known before it.
    until: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(poll: Poll, shared: Weak<Shared>, alarm: Arc<Alarm>) -> Self {
        Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            shared,
            wakes: Wakes::default(),
            again: Vec::new(),
            unread: Vec::new(),
            direct: Direct::new(alarm.clone()),
            alarm,
            datagrams: 0,
            other_events: false,
            until: None,
        }
    }

    /// Waits in a receive, if now is the time for it, and deals with what came. Tells whether it was.
    fn receive_directly(&mut self, shared: &Arc<Shared>, deadline: Option<Instant>, sleep: &Sleep) -> bool {
        if !self.direct.is_time() || !self.unread.is_empty() || !self.again.is_empty() {
            self.direct.stop();
            return false;
        }
        let nearest = clock::now() + NEAREST_TIMER;
        if shared.quic.next_timer().is_some_and(|timer| timer < nearest) {
            shared.quic.move_timers(nearest);
        }
        sleep.prepare();
        self.until = until(shared, deadline);
        sleep.until(self.until);
        let is_near = self.until.is_some_and(|until| until < nearest);
        let socket = if is_near { None } else { self.direct.socket(&shared.sources) };
        let Some((socket, deaf)) = socket.and_then(|socket| Some((socket, self.alarm.will_receive()?)))
        else {
            self.direct.stop();
            return false;
        };
        let came = shared.quic.receive_one(&socket);
        drop(deaf);
        sleep.over();
        self.datagrams += usize::from(shared.quic.handle_received(shared, &socket, came, &mut self.wakes));
        true
    }

    fn sleep(&mut self, shared: &Shared, deadline: Option<Instant>, sleep: &Sleep) {
        sleep.prepare();
        self.until = until(shared, deadline);
        sleep.until(self.until);
        let mut timeout = self.until.map(|until| until.saturating_duration_since(clock::now()));
        if !self.unread.is_empty() || shared.has_room_again(&self.again) {
            timeout = Some(std::time::Duration::ZERO);
        }
        self.alarm.will_poll();
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "the poll failed");
        }
        sleep.over();
    }

    /// Waits for the sockets of a transport that is closed; its endings are looked at by the caller.
    pub(crate) fn poll_endings(&mut self, deadline: Instant) {
        self.direct.stop();
        let left = deadline.saturating_duration_since(clock::now());
        if let Err(error) = self.poll.poll(&mut self.events, Some(left)) {
            tracing::debug!(%error, "the last poll failed");
        }
    }

    fn handle_events(&mut self, shared: &Arc<Shared>) {
        let mut again = std::mem::take(&mut self.again);
        again.append(&mut self.unread);
        for token in again {
            self.handle_ready(shared, token, false);
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in events.iter().filter(|event| event.token() != WAKER) {
            self.handle_ready(shared, event.token(), event.is_read_closed() || event.is_error());
        }
        self.events = events;
    }

    /// Looks at one source; `last` when the end of its input may have come.
    fn handle_ready(&mut self, shared: &Arc<Shared>, token: Token, last: bool) {
        // The table is not held while the source works.
        let source = shared.sources.hold().find(token);
        let Some(source) = source else { return };
        self.other_events |= !matches!(source, Source::Udp(_));
        match source {
            Source::Acceptor(acceptor) => {
                if acceptor.handle_ready(shared) {
                    self.again.push(token);
                }
            }
            Source::Chore(task) => task.come_due(shared),
            Source::Ending(ending) => {
                if ending.handle_ready(shared, last) {
                    self.unread.push(token);
                }
            }
            Source::Handshake(handshake) => handshake.handle_ready(shared, last, &mut self.wakes),
            Source::Reader(end) => {
                if end.handle_ready(shared) {
                    self.unread.push(token);
                }
            }
            Source::Writer(end) => end.handle_ready(shared),
            Source::Udp(socket) => {
                let came = shared.quic.handle_ready(shared, &socket, last, &mut self.wakes);
                self.datagrams += came.datagrams;
                if came.more {
                    self.unread.push(token);
                }
            }
        }
    }

    /// A relay has timers of its own.
    fn look_again(&mut self, socket: &UdpSocket, token: Token) {
        #[cfg(feature = "turn")]
        if let Some(relay) = socket.relay() {
            relay.disarmed();
            self.again.push(token);
        }
        #[cfg(not(feature = "turn"))]
        let _ = (socket, token);
    }

    fn handle_timers(&mut self, shared: &Arc<Shared>, now: Instant) {
        loop {
            let mut sources = shared.sources.hold();
            let Some(token) = sources.pop_expired(now) else { return };
            let Some(source) = sources.find(token) else { continue };
            drop(sources);
            match source {
                Source::Handshake(handshake) => handshake.handle_timeout(shared, &mut self.wakes),
                Source::Ending(_) => drop(shared.sources.hold().remove(token)),
                Source::Acceptor(_) => self.again.push(token),
                Source::Chore(task) => task.come_due(shared),
                Source::Udp(socket) => self.look_again(&socket, token),
                Source::Reader(_) | Source::Writer(_) => {}
            }
        }
    }
}

impl Turn for Driver {
    fn turn(&mut self, deadline: Option<Instant>, sleep: &Sleep) -> bool {
        let Some(shared) = self.shared.upgrade() else { return false };
        (self.datagrams, self.other_events) = (0, false);
        if !self.receive_directly(&shared, deadline, sleep) {
            self.sleep(&shared, deadline, sleep);
            self.handle_events(&shared);
        }
        let now = clock::now();
        // What was set for a time before that in the meantime is seen to by the next turn, which does not sleep then.
        if self.until.is_some_and(|until| until <= now) {
            self.handle_timers(&shared, now);
            Later::handle_timers(&shared, now);
            shared.quic.handle_timers(&shared, now, &mut self.wakes);
        }
        let others = self.wakes.fire_in_turn();
        self.direct.turned(self.datagrams == 1 && !self.other_events && !others);
        others
    }
}

/// When something is due, whatever comes.
fn until(shared: &Shared, deadline: Option<Instant>) -> Option<Instant> {
    let timer = shared.sources.hold().next_timer();
    [deadline, timer, shared.quic.next_timer(), shared.later.next_timer()].into_iter().flatten().min()
}

/// The token of the poll's waker, which no source can have.
pub(crate) const WAKER: Token = Token(usize::MAX);
/// One batch; what does not fit comes with the next turn.
const EVENTS_PER_TURN: usize = 256;
