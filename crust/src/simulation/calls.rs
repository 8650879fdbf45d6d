//! Calls of connect, and attempts to leave a relay: what the threads `crust-dial` and `crust-improve` do.

use std::time::{Duration, Instant};

use transport::{
    NetworkName, PathKind, ProtocolLabel, PublicKey,
    testing::{DialId, MeetingId, StreamId},
};

use super::{
    detours::Attempt,
    service::{Happening, Service},
};
use crate::{
    io::entropy,
    protocol::{
        introducer::frame::{EndReason, Frame, Frames},
        introduction::{Answer, CALL, Calling, Knocking, Saying, Wish},
        plan::{Claim, Leg, Plan},
    },
    shared::INTRODUCE,
};

/// One call of connect.
pub(super) struct Connect {
    pub(super) id: u64,
    peer: PublicKey,
    endpoints: Vec<std::net::SocketAddr>,
    /// The places of the introducers among those that the service knows.
    introducers: Vec<usize>,
    plan: Plan,
    begun: Instant,
    deadline: Instant,
    /// By which introducer the peer is met.
    pub(super) claim: Claim,
    /// Nobody need hold back any more.
    hurried: bool,
    straight: Vec<DialId>,
    failures: Vec<String>,
}

/// One introduction that was asked for.
pub(super) struct Introduced {
    pub(super) purpose: Purpose,
    pub(super) meeting: MeetingId,
    peer: PublicKey,
    not_before: Instant,
    pub(super) until: Instant,
    pub(super) step: Step,
    /// The peer itself has said no.
    pub(super) refused: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Stream {
        connect: u64,
        leg: Leg,
    },
    Improve(Attempt),
    /// Only to learn how we are seen.
    InAdvance,
}

pub(super) enum Step {
    Learning,
    Reaching(DialId),
    HeldBack(StreamId),
    Knocked(StreamId, Box<Calling>),
    /// Another introducer has brought an answer before, and may go on until then.
    Answered {
        stream: StreamId,
        calling: Box<Calling>,
        answer: Box<Answer>,
        until: Instant,
    },
    Meeting(StreamId, Box<Calling>, Box<Saying>),
}

impl Step {
    pub(super) fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Learning | Self::Reaching(_) => None,
            Self::HeldBack(stream)
            | Self::Knocked(stream, _)
            | Self::Answered { stream, .. }
            | Self::Meeting(stream, ..) => Some(*stream),
        }
    }
}

impl Introduced {
    pub(super) fn in_advance(now: Instant, meeting: MeetingId) -> Self {
        Self {
            purpose: Purpose::InAdvance,
            meeting,
            peer: PublicKey::from_bytes([0; 32]),
            not_before: now,
            until: now + ASKING,
            step: Step::Learning,
            refused: false,
        }
    }

    pub(super) fn saying_of(&mut self, meeting: MeetingId) -> Option<(StreamId, u32, &mut Saying)> {
        match &mut self.step {
            Step::Meeting(stream, _, saying) if self.meeting == meeting => {
                Some((*stream, CALL, &mut **saying))
            }
            _ => None,
        }
    }
}

impl Service {
    /// Calls connect.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        peer: PublicKey,
        endpoints: &[std::net::SocketAddr],
        patience: Duration,
    ) -> u64 {
        self.now = now;
        let id = self.number();
        let introducers: Vec<usize> = (0..self.attachments.len()).collect();
        let plan = Plan::new(now, !endpoints.is_empty(), false, introducers.len(), 0);
        self.connects.push(Connect {
            id,
            peer,
            endpoints: endpoints.to_vec(),
            introducers,
            plan,
            begun: now,
            deadline: now + patience,
            claim: Claim::default(),
            hurried: false,
            straight: Vec::new(),
            failures: Vec::new(),
        });
        self.turn();
        id
    }

    /// Gives a call up, as an interrupted `connect` does.
    pub(super) fn give_up(&mut self, now: Instant, connect: u64) {
        self.now = now;
        self.end_connect(connect);
        self.turn();
    }

    pub(super) fn calls_due(&self) -> impl Iterator<Item = Instant> {
        let connects =
            self.connects.iter().flat_map(|one| one.plan.poll_timeout().into_iter().chain([one.deadline]));
        let held = self.introduced.values().filter_map(|one| match one.step {
            Step::Learning | Step::Meeting(..) => None,
            Step::HeldBack(_) => Some(one.not_before.min(one.until)),
            Step::Reaching(_) | Step::Knocked(..) => Some(one.until),
            Step::Answered { until, .. } => Some(until.min(one.until)),
        });
        connects.chain(held)
    }

    pub(super) fn go_on_calling(&mut self) -> bool {
        let (now, mut moved) = (self.now, false);
        for index in 0..self.connects.len() {
            while now < self.connects[index].deadline
                && let Some(leg) = self.connects[index].plan.poll_start(now)
            {
                self.start(index, leg);
                moved = true;
            }
        }
        let lost = |one: &Connect| one.plan.is_lost() || one.deadline + GRACE <= now;
        for id in self.connects.iter().filter(|one| lost(one)).map(|one| one.id).collect::<Vec<_>>() {
            let failures = self.connects.iter().find(|one| one.id == id).map(|one| one.failures.join("; "));
            self.tell(Happening::NotConnected(id, failures.unwrap_or_default()));
            self.end_connect(id);
            moved = true;
        }
        for id in self.introduced.keys().copied().collect::<Vec<_>>() {
            moved |= self.go_on_introducing(id);
        }
        moved
    }

    fn start(&mut self, index: usize, leg: Leg) {
        let now = self.now;
        let connect = &self.connects[index];
        let (id, peer) = (connect.id, connect.peer);
        match leg {
            Leg::Straight => {
                for endpoint in connect.endpoints.clone() {
                    let dial = self.node.dial(now, endpoint, peer, &ProtocolLabel::default());
                    self.connects[index].straight.push(dial);
                }
            }
            Leg::Introduced(place) => {
                let introducer = connect.introducers[place];
                let holds_back = !connect.endpoints.is_empty();
                let head_start = if holds_back { HEAD_START } else { Duration::ZERO };
                let (not_before, until) = (connect.begun + head_start, connect.deadline);
                let purpose = Purpose::Stream { connect: id, leg };
                self.introduce(purpose, introducer, peer, not_before, until);
            }
            // There is no beacon in this network.
            Leg::Known | Leg::Sought | Leg::Relayed(_) => self.leg_failed(id, leg, "nothing there"),
            #[cfg(feature = "dht")]
            Leg::LookedUp | Leg::Found(_) | Leg::FoundIntroduced(..) => {
                self.leg_failed(id, leg, "no DHT here")
            }
        }
    }

    pub(super) fn introduce(
        &mut self,
        purpose: Purpose,
        introducer: usize,
        peer: PublicKey,
        not_before: Instant,
        until: Instant,
    ) {
        let relayed = match &purpose {
            Purpose::Stream { .. } => true,
            Purpose::Improve(attempt) => attempt.rescues,
            Purpose::InAdvance => false,
        };
        let meeting = self.open_meeting(false, relayed);
        let known = &self.attachments[introducer];
        let dial = self.node.dial(self.now, known.addr, known.key, &INTRODUCE);
        let id = self.number();
        let (step, refused) = (Step::Reaching(dial), false);
        self.introduced.insert(id, Introduced { purpose, meeting, peer, not_before, until, step, refused });
    }

    pub(super) fn go_on_introducing(&mut self, id: u64) -> bool {
        let Some(one) = self.introduced.get(&id) else { return false };
        match &one.step {
            Step::Learning => {
                let over = !self.is_learning(one.meeting);
                if over {
                    self.end_introduction(id);
                }
                over
            }
            Step::Meeting(..) => false,
            Step::Answered { until, .. } if *until <= self.now => self.go_on_answered(id),
            _ if one.until <= self.now => {
                self.introduction_failed(id, "the peer did not answer in time");
                true
            }
            Step::HeldBack(stream) if one.not_before <= self.now || self.is_hurried(id) => {
                let (stream, peer) = (*stream, one.peer);
                let node = &self.node;
                let (ours, secret) = (self.node.public_key(), entropy::ephemeral());
                let sign = |text: &[u8]| node.sign(text);
                let (label, network) = (ProtocolLabel::default(), NetworkName::default());
                let rescues = match &one.purpose {
                    Purpose::Improve(attempt) => Some(&attempt.mark).filter(|_| attempt.rescues),
                    _ => None,
                };
                let wish = Wish { label: &label, token: None, network: &network, rescues, single: false };
                let (knocking, knock) = Knocking::new(secret, ours, peer, wish, sign);
                let calling = Box::new(Calling::new(peer, knocking));
                self.send(stream, &Frame::Knock { call: CALL, key: peer, knock });
                if let Some(one) = self.introduced.get_mut(&id) {
                    one.step = Step::Knocked(stream, calling);
                }
                true
            }
            _ => false,
        }
    }

    fn is_hurried(&self, id: u64) -> bool {
        let Some(Purpose::Stream { connect, .. }) = self.introduced.get(&id).map(|one| &one.purpose) else {
            return true;
        };
        self.connects.iter().any(|one| one.id == *connect && one.hurried)
    }

    pub(super) fn call_dialled(&mut self, dial: DialId, outcome: Result<StreamId, String>) {
        if let Some(index) = self.connects.iter().position(|one| one.straight.contains(&dial)) {
            let connect = &mut self.connects[index];
            connect.straight.retain(|known| *known != dial);
            let id = connect.id;
            match outcome {
                Ok(stream) => self.connected(id, stream),
                Err(reason) if self.connects[index].straight.is_empty() => {
                    self.leg_failed(id, Leg::Straight, &reason);
                }
                Err(_) => {}
            }
            return;
        }
        let ours = |one: &Introduced| matches!(one.step, Step::Reaching(known) if known == dial);
        let id = self.introduced.iter().find(|(_, one)| ours(one)).map(|(id, _)| *id);
        match (id, outcome) {
            (Some(id), Ok(stream)) => {
                self.pipes.insert(stream, Frames::default());
                if let Some(one) = self.introduced.get_mut(&id) {
                    one.step = Step::HeldBack(stream);
                }
            }
            (Some(id), Err(reason)) => self.introduction_failed(id, &reason),
            (None, Ok(stream)) => self.node.drop_stream(self.now, stream),
            (None, Err(_)) => {}
        }
    }

    pub(super) fn introduction_failed(&mut self, id: u64, reason: &str) {
        match self.introduced.get(&id).map(|one| one.purpose.clone()) {
            Some(Purpose::Stream { connect, leg }) => {
                self.end_introduction(id);
                self.leg_failed(connect, leg, reason);
            }
            Some(Purpose::Improve(_)) => self.not_introduced(id, reason),
            Some(Purpose::InAdvance) => self.end_introduction(id),
            None => {}
        }
    }

    /// Ends what an introduction has under way.
    pub(super) fn end_introduction(&mut self, id: u64) {
        let Some(one) = self.introduced.remove(&id) else { return };
        let now = self.now;
        self.forget_learning(one.meeting);
        self.node.end_meeting(now, one.meeting);
        if let Step::Reaching(dial) = one.step {
            self.node.cancel(now, dial);
        }
        if let Some(stream) = one.step.stream() {
            self.send(stream, &Frame::End { call: CALL, reason: EndReason::Done });
            self.pipes.remove(&stream);
            self.node.drop_stream(now, stream);
        }
    }

    fn leg_failed(&mut self, connect: u64, leg: Leg, reason: &str) {
        let now = self.now;
        let Some(connect) = self.connects.iter_mut().find(|one| one.id == connect) else { return };
        connect.failures.push(format!("{leg:?}: {reason}"));
        connect.plan.handle_failure(now, leg);
        connect.hurried = true;
    }

    pub(super) fn connected(&mut self, id: u64, stream: StreamId) {
        if self.connects.iter().all(|one| one.id != id) {
            return self.node.drop_stream(self.now, stream);
        }
        let kind = self.node.path(stream).map_or(PathKind::Direct, |(kind, _)| kind);
        self.end_connect(id);
        self.tell(Happening::Connected(id, stream, kind));
        self.look_after(stream, true);
    }

    /// The call is over: what it has under way ends.
    fn end_connect(&mut self, id: u64) {
        let Some(index) = self.connects.iter().position(|one| one.id == id) else { return };
        let connect = self.connects.remove(index);
        for dial in connect.straight {
            self.node.cancel(self.now, dial);
        }
        let ours = |one: &Introduced| matches!(one.purpose, Purpose::Stream { connect, .. } if connect == id);
        let all: Vec<u64> = self.introduced.iter().filter(|(_, one)| ours(one)).map(|(id, _)| *id).collect();
        for id in all {
            self.end_introduction(id);
        }
    }
}

/// What a local network takes to answer, and more.
const HEAD_START: Duration = Duration::from_millis(50);
/// Each road ends at the deadline by itself.
const GRACE: Duration = Duration::from_millis(100);
/// For an introducer, until the peer has answered.
pub(super) const ASKING: Duration = Duration::from_secs(10);
