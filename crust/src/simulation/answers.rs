//! What introducers and peers answer to calls.

use std::time::Duration;

use transport::{
    ProtocolLabel,
    testing::{MeetingId, StreamId},
};

use super::{
    calls::{Purpose, Step},
    detours::Attempt,
    service::Service,
};
use crate::protocol::{
    introducer::frame::Frame,
    introduction::{Answer, CALL, NoCall, Said, Saying},
};

impl Service {
    /// A frame of the introducer of a call.
    pub(super) fn call_heard(&mut self, stream: StreamId, frame: Frame) {
        let found = self.introduced.iter_mut().find(|(_, one)| one.step.stream() == Some(stream));
        let Some((&id, one)) = found else { return };
        let meeting = one.meeting;
        let said = match &mut one.step {
            Step::Knocked(_, calling) | Step::Meeting(_, calling, _) => calling.handle_frame(frame),
            _ => return,
        };
        match said {
            Ok(Some(Said::Answer(answer))) => {
                let one = self.introduced.get_mut(&id).expect("it has just been found");
                if let Step::Knocked(stream, calling) = std::mem::replace(&mut one.step, Step::Learning) {
                    one.step = Step::Answered { stream, calling, answer, until: self.now };
                }
                self.go_on_introducing(id);
            }
            Ok(Some(Said::More(offer))) => self.node.receive_offer(self.now, meeting, &offer),
            Ok(None) => {}
            Err(over) => {
                // What is under way goes on without news.
                let meets = self.introduced.get(&id).is_some_and(|one| matches!(one.step, Step::Meeting(..)));
                if let Some(one) = self.introduced.get_mut(&id) {
                    one.refused = matches!(over, NoCall::Refused(_));
                }
                if !meets {
                    self.introduction_failed(id, &over.to_string());
                }
            }
        }
    }

    /// The peer has answered: it is met, unless it is being met by another introducer.
    pub(super) fn go_on_answered(&mut self, id: u64) -> bool {
        let now = self.now;
        let Some(one) = self.introduced.get_mut(&id) else { return false };
        let Step::Answered { until, .. } = &mut one.step else { return false };
        if let Purpose::Stream { connect, .. } = one.purpose {
            let Some(connect) = self.connects.iter_mut().find(|one| one.id == connect) else { return false };
            match connect.claim.take(now) {
                Ok(()) => {}
                Err(Some(later)) => return std::mem::replace(until, later) != later,
                Err(None) => {
                    self.introduction_failed(id, "the peer was met in vain by another introducer");
                    return true;
                }
            }
        }
        let (meeting, purpose, patience) = (one.meeting, one.purpose.clone(), one.until);
        let Step::Answered { stream, calling, answer, .. } = std::mem::replace(&mut one.step, Step::Learning)
        else {
            return false;
        };
        let Answer { offer, sealing, vouched } = *answer;
        let improves = match &purpose {
            Purpose::Improve(attempt) => Some(attempt.mark),
            _ => None,
        };
        one.step = Step::Meeting(stream, calling, Box::new(Saying::new(sealing, improves, None)));
        if let Some(ip) = vouched {
            self.node.vouch(now, meeting, ip);
        }
        self.send(stream, &Frame::Vouch { call: CALL, source: None });
        self.say(meeting);
        let begun = match purpose {
            Purpose::Improve(Attempt { detour, rescues: false, .. }) => {
                self.node.improve(now, meeting, &offer, detour.stream, now + PUNCHING)
            }
            Purpose::Improve(Attempt { detour, .. }) => {
                self.node.rescue(now, meeting, &offer, detour.stream, now + PUNCHING)
            }
            _ => self.node.meet(now, meeting, &offer, &ProtocolLabel::default(), patience),
        };
        if let Err(reason) = begun {
            self.introduction_failed(id, &reason);
        }
        true
    }

    /// A stream to the introducer of a call has ended.
    pub(super) fn call_lost(&mut self, stream: StreamId) {
        let found = self.introduced.iter().find(|(_, one)| one.step.stream() == Some(stream));
        let Some((&id, one)) = found else { return };
        if !matches!(one.step, Step::Meeting(..)) {
            self.introduction_failed(id, "the introducer is gone");
        }
    }

    /// Whether the meeting was one of ours.
    pub(super) fn call_met(&mut self, meeting: MeetingId, outcome: &Result<StreamId, String>) -> bool {
        let Some((&id, one)) = self.introduced.iter().find(|(_, one)| one.meeting == meeting) else {
            return false;
        };
        let Purpose::Stream { connect, .. } = one.purpose else { return true };
        match outcome {
            Ok(stream) => {
                self.end_introduction(id);
                self.connected(connect, *stream);
            }
            Err(reason) => {
                if let Some(connect) = self.connects.iter_mut().find(|one| one.id == connect) {
                    connect.claim.handle_failure();
                }
                self.introduction_failed(id, reason);
                for id in self.introduced.keys().copied().collect::<Vec<_>>() {
                    self.go_on_answered(id);
                }
            }
        }
        true
    }
}

/// As long as the peer does.
const PUNCHING: Duration = Duration::from_secs(15);
