mod introduced;
mod relayed;
mod udp;

use std::{
    net::TcpStream,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use nat_traversal::{MappingConfig, MappingContext, PunchError, protocol::UdpPuncher};

pub(super) use introduced::Ground;
pub(crate) use udp::connect_from;

use self::{introduced::Introduced, relayed::Held};
use super::{
    Hold,
    further::{Further, IntroductionNumber},
    half::Half,
    road_of,
    traces::{EndPunches, Expected, TcpFinds, describe},
};
use crate::{
    PathKind, Scheme, Stream,
    admission::Refusal,
    connect_options::ConnectOptions,
    identity::PublicKey,
    io::{
        clock,
        crank::Waited,
        dial::{Dial, DialError, DialOrder, Outcomes, TcpDial},
        handshake::TcpHandshake,
        lock::Lock as _,
        slot::Slot,
        udp::{SharedMachine, UdpSocket},
    },
    protocol::{
        doors::{Door, LONGEST_PAUSE, doors},
        offer::{Hole, Offer},
        preface::{Preface, Purpose},
        rounds::Round,
    },
    rendezvous::{RendezvousError, RendezvousFailure, RendezvousRoad},
    stream::Carrier,
    transport::Shared,
};

/// Meets the peer by whatever way works first.
pub(crate) fn connect(
    half: &Arc<Half>,
    theirs: &Offer,
    options: &ConnectOptions,
) -> Result<Stream, RendezvousError> {
    let shared = &half.shared;
    let begun = clock::now();
    let deadline = options.deadline_of(begun, shared.config.connect_timeout);
    let slot = shared.crank.slot();
    let _watch = options.interrupter.as_ref().map(|interrupter| interrupter.watch(&slot));
    let ours = half.begin(&slot).ok_or(RendezvousError::Full)?;
    let keys = ours.meeting.agree(&theirs.meeting).map_err(|_| RendezvousError::Offer)?;
    if theirs.public_key == shared.public_key {
        return Err(RendezvousError::Offer);
    }
    // Whoever is second leads: its packets pass the other's NAT at once, and what the first gets is a stream without a further
    // round trip for the verdict.
    let leads = if ours.second == theirs.second { keys.leads() } else { ours.second };
    let expected = Expected::begin(shared, &keys, leads, theirs.public_key, options, deadline)?;
    let context = MappingContext::new(MappingConfig::new()).map_err(std::io::Error::other)?;
    let finds = TcpFinds { slot: slot.clone(), found: Mutex::default() };
    thread::scope(|scope| {
        // However this ends, so do they.
        let _ending = EndPunches(context.interrupter());
        let ground = Ground { scope, context: &context, finds: &finds };
        let doors = doors(begun, &theirs.listeners);
        let mut call = Call::new(shared, &slot, &expected, doors, begun, deadline, options);
        call.dialable = ours.is_dialable;
        call.doors.retain(|door| half.ways.contains(PathKind::of(door.remote, false)));
        call.introduce(ground, IntroductionNumber::default(), half, (ours.holes, ours.second), theirs)?;
        call.run(&finds, Some(ground))
    })
}

/// One call, on the caller's thread.
pub(super) struct Call<'c> {
    /// None where nothing is told but what was at the beginning.
    introductions: Vec<Introduced>,
    /// Where others put what they find meanwhile.
    pub(super) further: Option<&'c Further>,
    shared: &'c Arc<Shared>,
    slot: &'c Arc<Slot>,
    expected: &'c Expected<'c>,
    options: &'c ConnectOptions,
    peer: PublicKey,
    leads: bool,
    begun: Instant,
    deadline: Instant,
    outcomes: Arc<Outcomes>,
    punches: Vec<Punch>,
    tcp_punches: usize,
    /// Ways over relays that are held back.
    held: Vec<Held>,
    /// Where the peer listens.
    doors: Vec<Door>,
    attempts: Vec<Attempt>,
    /// Handshakes in which the peer asks.
    awaited: Vec<TcpDial>,
    /// Kept until the call is over: streams may come in on them.
    holds: Vec<Hold>,
    failures: Vec<RendezvousFailure>,
    /// The peer may come in by itself.
    pub(super) dialable: bool,
    /// There is a hole for QUIC on which the peer may ask.
    may_be_asked: bool,
}

struct Punch {
    /// Whose news it is told.
    introduced: Option<IntroductionNumber>,
    hole: Hole,
    machine: SharedMachine<UdpPuncher>,
    /// QUIC may begin before the peer is heard.
    blindly: bool,
}

/// One connection on which a stream may be asked for.
struct Attempt {
    road: RendezvousRoad,
    /// The door it dials.
    door: Option<usize>,
    /// The number of the socket that it was told to go from.
    via: Option<usize>,
    begun: Instant,
    /// It was begun before the peer was heard.
    is_blind: bool,
    /// When to begin it anew if the peer does not answer: it was heard there since.
    again: Option<Instant>,
    dial: Option<Dial>,
}

impl<'c> Call<'c> {
    pub(super) fn new(
        shared: &'c Arc<Shared>,
        slot: &'c Arc<Slot>,
        expected: &'c Expected<'c>,
        doors: Vec<Door>,
        begun: Instant,
        deadline: Instant,
        options: &'c ConnectOptions,
    ) -> Self {
        Self {
            introductions: Vec::new(),
            further: None,
            shared,
            slot,
            expected,
            options,
            peer: expected.peer,
            leads: expected.leads,
            begun,
            deadline,
            outcomes: Outcomes::new(slot.clone()),
            punches: Vec::new(),
            tcp_punches: 0,
            held: Vec::new(),
            doors,
            attempts: Vec::new(),
            awaited: Vec::new(),
            holds: Vec::new(),
            failures: Vec::new(),
            dialable: false,
            may_be_asked: false,
        }
    }

    /// Blocks until there is a stream. `ground`: where what is found meanwhile can be punched for TCP.
    pub(super) fn run(
        &mut self,
        finds: &TcpFinds,
        ground: Option<Ground<'_, '_>>,
    ) -> Result<Stream, RendezvousError> {
        let expected = self.expected;
        let _watch = expected.queue.watch(self.slot);
        loop {
            let now = clock::now();
            self.take_further(now, ground);
            self.take_news(now);
            for index in 0..self.doors.len() {
                if self.doors[index].due.is_some_and(|due| due <= now) {
                    self.knock(index);
                }
            }
            self.turn_punches(now);
            let found = std::mem::take(&mut *finds.found.hold());
            for (hole, found) in found {
                self.tcp_found(hole, found);
            }
            self.begin_again(now);
            self.release_relays(now);
            if let Some(stream) = self.take_stream()? {
                return Ok(stream);
            }
            if self.options.is_interrupted() {
                return Err(RendezvousError::Interrupted);
            }
            if now >= self.deadline || self.is_hopeless() {
                return Err(self.failed(now));
            }
            let punches = self.punches.iter().filter_map(|punch| punch.machine.timeout());
            let doors = self.doors.iter().filter_map(|door| door.due);
            let until = punches.chain(doors).chain(self.due_again()).chain(self.held_until());
            let until = until.chain([self.deadline]).min();
            if let Waited::Closed = self.shared.crank.wait(self.slot, until) {
                return Err(RendezvousError::Closed);
            }
        }
    }

    fn knock(&mut self, index: usize) {
        let door = &mut self.doors[index];
        door.due = None;
        let (scheme, remote) = (door.scheme, door.remote);
        self.dial(RendezvousRoad::Listener { scheme, remote }, Some(index), None, None);
    }

    fn tcp_found(&mut self, hole: Hole, found: Result<TcpStream, PunchError>) {
        self.tcp_punches -= 1;
        let road = RendezvousRoad::Punched { scheme: Scheme::Tcp, remote: None };
        match found {
            Ok(stream) => match stream.set_nonblocking(true).and_then(|()| stream.peer_addr()) {
                Ok(remote) => {
                    tracing::debug!(%remote, leads = self.leads, "punched a hole for TLS");
                    let road = RendezvousRoad::Punched { scheme: Scheme::Tcp, remote: Some(remote) };
                    self.shake_hands(road, stream);
                }
                Err(error) => self.fail(road, self.begun, &error),
            },
            Err(error) => self.fail(road_of(hole), self.begun, &describe(&error)),
        }
    }

    fn shake_hands(&mut self, road: RendezvousRoad, stream: TcpStream) {
        if self.leads {
            self.dial(road, None, None, Some(stream));
            return;
        }
        match TcpHandshake::accept_punched(self.shared, stream) {
            Ok(token) => self.awaited.push(TcpDial::new(self.shared, token)),
            Err(error) => self.fail(road, clock::now(), &error),
        }
    }

    /// Begins an attempt, from that socket or over that connection if there is one.
    fn dial(
        &mut self,
        road: RendezvousRoad,
        door: Option<usize>,
        via: Option<Arc<UdpSocket>>,
        connected: Option<TcpStream>,
    ) {
        let (RendezvousRoad::Listener { scheme, remote }
        | RendezvousRoad::Punched { scheme, remote: Some(remote) }) = road
        else {
            return;
        };
        tracing::trace!(?road, leads = self.leads, "dialling a peer that is met");
        let attempt = self.attempts.len();
        let order = DialOrder {
            attempt,
            scheme,
            remote,
            local: None,
            punched: matches!(road, RendezvousRoad::Punched { .. }),
            via,
            expected: self.peer,
            preface: Preface {
                purpose: Purpose::Rendezvous(self.expected.tag),
                label: self.options.label.clone(),
                token: None,
                network: self.options.network.clone(),
                stays: true,
            },
            early: false,
            own_connection: true,
            over_guest: false,
            directly: false,
            round: Round::Last,
            outcomes: self.outcomes.clone(),
        };
        let via = order.via.as_ref().map(|socket| socket.number());
        let begun = clock::now();
        let dial = match connected {
            Some(stream) => TcpHandshake::dial_over(self.shared, stream, order)
                .map(|token| Dial::Tcp(TcpDial::new(self.shared, token))),
            None => order.begin(self.shared),
        };
        let (dial, error) = match dial {
            Ok(dial) => (Some(dial), None),
            Err(error) => (None, Some(DialError::Socket(error))),
        };
        self.attempts.push(Attempt { road, door, via, begun, is_blind: false, again: None, dial });
        if let Some(error) = error {
            self.attempt_failed(attempt, &error);
        }
    }

    /// The stream, if one is there.
    fn take_stream(&mut self) -> Result<Option<Stream>, RendezvousError> {
        if let Some(stream) = self.expected.queue.take() {
            self.note_kind(&stream);
            return Ok(Some(stream));
        }
        for (index, outcome) in self.outcomes.take() {
            match outcome {
                Ok(stream) => return Ok(Some(stream)),
                Err(DialError::Refused(reason)) if reason != Refusal::Rendezvous => {
                    return Err(RendezvousError::Refused { peer: self.peer, reason });
                }
                Err(error) => self.attempt_failed(index, &error),
            }
        }
        Ok(None)
    }

    /// The leader's stream may be here before our own end of the punch has heard that there is a hole, or by another one.
    fn note_kind(&self, stream: &Stream) {
        let by_hole = !self.leads && (self.may_be_asked || !self.punches.is_empty());
        if let (Carrier::Quic(stream), true) = (stream.carrier(), by_hole) {
            stream.note_punched(|remote| self.is_relayed(remote));
        }
    }

    fn attempt_failed(&mut self, index: usize, error: &DialError) {
        self.shared.meetings.hold().attempt_failed(self.expected.tag, index);
        let attempt = &mut self.attempts[index];
        attempt.dial = None;
        let (road, begun, door) = (attempt.road, attempt.begun, attempt.door);
        // Somebody else lives there, as happens with addresses of private networks; and whoever was tried often enough
        // is left alone.
        let again = !matches!(error, DialError::WrongPeer) && self.attempts.len() < MAX_ATTEMPTS;
        if let Some(door) = door.filter(|_| again).and_then(|door| self.doors.get_mut(door)) {
            door.due = Some(clock::now() + door.pause);
            door.pause = (door.pause * 2).min(LONGEST_PAUSE);
        }
        self.failures.retain(|failure| failure.road != road);
        self.fail(road, begun, error);
    }

    /// Nothing is under way, and nothing can come.
    fn is_hopeless(&self) -> bool {
        let dialling = self.attempts.iter().any(|attempt| attempt.dial.is_some());
        let will_dial = self.doors.iter().any(|door| door.due.is_some());
        !self.introductions.iter().any(Introduced::may_learn_more)
            && !dialling
            && !will_dial
            && !self.may_be_asked
            && !self.dialable
            && self.punches.is_empty()
            && self.held.is_empty()
            && self.tcp_punches == 0
            && self.awaited.is_empty()
    }

    fn fail(&mut self, road: RendezvousRoad, begun: Instant, reason: &dyn std::fmt::Display) {
        tracing::debug!(?road, %reason, "a way to meet failed");
        self.failures.push(RendezvousFailure::new(road, begun, clock::now(), reason));
    }

    /// What became of each way; what has no end yet ran out of time.
    fn failed(&mut self, now: Instant) -> RendezvousError {
        let unfinished = self.attempts.iter().filter(|attempt| attempt.dial.is_some());
        let unfinished =
            unfinished.map(|attempt| (attempt.road, attempt.begun, "no answer in time".to_owned()));
        let punching = self.punches.iter().map(|punch| {
            let obstacle = punch.machine.machine().obstacle();
            (road_of(punch.hole), self.begun, obstacle.to_string())
        });
        let over: Vec<_> = unfinished.chain(punching).collect();
        let mut failures = std::mem::take(&mut self.failures);
        failures
            .extend(over.into_iter().map(|(road, begun, why)| RendezvousFailure::new(road, begun, now, why)));
        if self.dialable || !self.leads {
            let why = "the peer did not come by itself";
            failures.push(RendezvousFailure::new(RendezvousRoad::Incoming, self.begun, now, why));
        }
        let waited = now.saturating_duration_since(self.begun);
        RendezvousError::Failed { peer: self.peer, waited, failures }
    }
}

/// Dials in all; a rendezvous is no port scan.
const MAX_ATTEMPTS: usize = 128;
