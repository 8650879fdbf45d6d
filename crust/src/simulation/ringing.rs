//! Peers that knock: what the thread `crust-meet` does.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use transport::{
    ProtocolLabel, PublicKey,
    testing::{MeetingId, StreamId},
};

use super::service::{Happening, Service};
use crate::{
    gate::code_of,
    io::entropy,
    protocol::{
        introducer::frame::{EndReason, Frame},
        introduction::{Answering, Knock, Particulars, Saying},
    },
};

/// One peer that knocks.
pub(super) struct Ringing {
    meeting: MeetingId,
    dialer: PublicKey,
    label: ProtocolLabel,
    /// The connection that the peer wants a path for, and nothing else.
    rescues: Option<StreamId>,
    answering: Answering,
    saying: Option<Saying>,
    /// The dialer's first note must be there by then; `None` once it is.
    until: Option<Instant>,
}

impl Ringing {
    pub(super) fn saying_of(&mut self, meeting: MeetingId) -> Option<&mut Saying> {
        self.saying.as_mut().filter(|_| self.meeting == meeting)
    }
}

impl Service {
    pub(super) fn ring(&mut self, _introducer: usize, through: StreamId, call: u32, knock: &[u8]) {
        let end = |reason| Frame::End { call, reason };
        if self.ringing.len() >= MEETINGS {
            return self.send(through, &end(EndReason::Busy));
        }
        let Ok(knock) = Knock::read(knock, self.node.public_key()) else {
            self.tell(Happening::NotMet("a knock that cannot be read".to_owned()));
            return self.send(through, &end(EndReason::Declined));
        };
        let dialer = knock.dialer();
        let rescues = self.rescued_by(&knock);
        let admitted = match rescues {
            Some(_) => Ok(ProtocolLabel::default()),
            None => self.gate.judge(&knock),
        };
        let label = match admitted {
            Ok(label) => label,
            Err(refusal) => {
                let refused = Particulars::refused(code_of(refusal));
                let node = &self.node;
                let answered = knock.answer(entropy::ephemeral(), &refused, |text| node.sign(text));
                if let Ok((_, note)) = answered {
                    self.send(through, &Frame::Note { call, note });
                }
                return self.send(through, &end(EndReason::Declined));
            }
        };
        let meeting = self.open_meeting(true, true);
        let said = self.node.offer(meeting).to_bytes();
        self.send(through, &Frame::Vouch { call, source: None });
        let node = &self.node;
        let told = Particulars::meeting(said.clone());
        let Ok((session, note)) = knock.answer(entropy::ephemeral(), &told, |text| node.sign(text)) else {
            self.forget_learning(meeting);
            self.node.end_meeting(self.now, meeting);
            return self.send(through, &end(EndReason::Declined));
        };
        self.send(through, &Frame::Note { call, note });
        let (sealing, opening) = session.split();
        let ringing = Ringing {
            meeting,
            dialer,
            label,
            rescues,
            answering: Answering::new(dialer, opening),
            saying: Some(Saying::new(sealing, None, Some(said))),
            until: Some(self.now + PATIENCE),
        };
        self.ringing.insert((through, call), ringing);
        self.say(meeting);
    }

    /// The stream whose connection the peer knocks for, if it is there and cut off.
    fn rescued_by(&mut self, knock: &Knock) -> Option<StreamId> {
        if !knock.is_a_rescue() {
            return None;
        }
        let streams: Vec<StreamId> = self.node.streams_with(knock.dialer()).collect();
        let is_meant = |stream: &StreamId| self.mark_of(*stream).is_some_and(|mark| knock.rescues(&mark));
        let stream = streams.into_iter().find(is_meant)?;
        self.doubt_relay(stream);
        Some(stream)
    }

    /// The peer says something.
    pub(super) fn noted(&mut self, through: StreamId, call: u32, note: &[u8]) {
        let now = self.now;
        let Some(one) = self.ringing.get_mut(&(through, call)) else { return };
        let meeting = one.meeting;
        let first = one.until.take().is_some();
        let begun = match (one.answering.handle_note(note), one.rescues) {
            (Err(error), _) => Err(error.to_string()),
            (Ok((offer, _)), _) if !first => return self.node.receive_offer(now, meeting, &offer),
            (Ok((offer, _)), Some(stream)) => self.node.rescue(now, meeting, &offer, stream, now + MEETING),
            (Ok((offer, None)), None) => {
                let label = one.label.clone();
                self.node.meet(now, meeting, &offer, &label, now + MEETING)
            }
            (Ok((offer, Some(mark))), None) => {
                let dialer = one.dialer;
                let streams: Vec<StreamId> = self.node.streams_with(dialer).collect();
                match streams.into_iter().find(|stream| self.mark_of(*stream) == Some(mark)) {
                    Some(stream) => self.node.improve(now, meeting, &offer, stream, now + MEETING),
                    None => Err("the connection that was to take a better path is not there".to_owned()),
                }
            }
        };
        if let Err(reason) = begun
            && first
        {
            self.end_ringing((through, call), EndReason::Declined);
            self.tell(Happening::NotMet(reason));
        }
    }

    /// The introducer sees the peer come from there.
    pub(super) fn vouched(&mut self, through: StreamId, call: u32, source: IpAddr) {
        if let Some(one) = self.ringing.get(&(through, call)) {
            self.node.vouch(self.now, one.meeting, source);
        }
    }

    /// The introducer carries nothing for that call any more: who has said nothing yet will not.
    pub(super) fn hung_up(&mut self, through: StreamId, call: u32) {
        let Some(one) = self.ringing.get_mut(&(through, call)) else { return };
        one.saying = None;
        if one.until.is_some() {
            self.end_ringing((through, call), EndReason::Gone);
        }
    }

    pub(super) fn ring_met(&mut self, meeting: MeetingId, outcome: Result<StreamId, String>) {
        let found = self.ringing.iter().find(|(_, one)| one.meeting == meeting).map(|(key, _)| *key);
        match (found, outcome) {
            (Some(key), Ok(stream)) => {
                self.end_ringing(key, EndReason::Done);
                self.look_after(stream, false);
                self.accepted(stream);
            }
            (Some(key), Err(reason)) => {
                self.end_ringing(key, EndReason::Declined);
                self.tell(Happening::NotMet(reason));
            }
            (None, Ok(stream)) => self.node.drop_stream(self.now, stream),
            (None, Err(_)) => {}
        }
    }

    pub(super) fn ring_improved(&mut self, meeting: MeetingId, outcome: &Result<(), String>) {
        let found = self.ringing.iter().find(|(_, one)| one.meeting == meeting).map(|(key, _)| *key);
        if let Some(key) = found {
            let reason = if outcome.is_ok() { EndReason::Done } else { EndReason::Declined };
            self.end_ringing(key, reason);
            self.tell(Happening::Improved(outcome.is_ok()));
        }
    }

    pub(super) fn ring_timers(&mut self) {
        let now = self.now;
        let late = |one: &Ringing| one.until.is_some_and(|until| until <= now);
        let late: Vec<_> = self.ringing.iter().filter(|(_, one)| late(one)).map(|(key, _)| *key).collect();
        for key in late {
            self.end_ringing(key, EndReason::Declined);
            self.tell(Happening::NotMet("it said nothing after our answer".to_owned()));
        }
    }

    pub(super) fn rings_due(&self) -> impl Iterator<Item = Instant> {
        self.ringing.values().filter_map(|one| one.until)
    }

    fn end_ringing(&mut self, key: (StreamId, u32), reason: EndReason) {
        let Some(one) = self.ringing.remove(&key) else { return };
        self.forget_learning(one.meeting);
        self.node.end_meeting(self.now, one.meeting);
        let (through, call) = key;
        self.send(through, &Frame::End { call, reason });
    }
}

/// The dialer offers as soon as it has our answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A NAT that draws ports at random takes several seconds.
const MEETING: Duration = Duration::from_secs(15);
/// Peers met at a time.
const MEETINGS: usize = 32;
