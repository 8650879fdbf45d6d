//! What comes for connections and what they tell.

use std::net::SocketAddr;

use bytes::BytesMut;
use nat_traversal::protocol::Seed;

use super::{After, Caller, Dial, Failure, Kind, Link, PATH};
use crate::{
    PathKind, PublicKey, Refusal,
    protocol::{
        paths::{CheckKeys, UdpSource, Way},
        preface::{Preface, Purpose},
        quic::{ConnectionEnd, QuicEvent, QuicHandle, QuicStreamId, Routed},
        reunion::Ruling,
        rounds::{Ended, Round},
        verdict::Verdict,
    },
    testing::{
        meeting::MeetingId,
        node::{Node, NodeEvent},
    },
};

impl Node {
    pub(in crate::testing) fn take_quic(&mut self, from: UdpSource, bytes: &[u8]) {
        // A socket takes strangers if it listens, or for a rendezvous.
        let is_open = self.config.listens && from.socket == 0 || !self.meetings.is_empty();
        let welcome = is_open.then_some(PATH);
        let routed =
            self.links.endpoint.handle_datagram(self.now, from, None, BytesMut::from(bytes), welcome);
        match routed {
            Routed::Connection(handle, input) => {
                if let Some(link) = self.links.all.get_mut(&handle.0) {
                    let way = Way { source: from, local: None };
                    link.paths.handle_datagram(self.now, way, bytes.len());
                    link.connection.handle_input(self.now, input);
                }
            }
            Routed::New(handle, connection) => {
                let seed = Seed::from_bytes(self.random.bytes());
                self.links.enter(handle, connection, Kind::Incoming { begun: self.now }, from, seed);
            }
            Routed::Answer(answer) => self.send(from, &answer, None),
            Routed::Nothing => {}
        }
    }

    pub(in crate::testing) fn take_check(&mut self, link: usize, from: UdpSource, bytes: &[u8]) {
        if let Some(link) = self.links.all.get_mut(&link) {
            link.paths.handle_check(self.now, Way { source: from, local: None }, bytes);
        }
    }

    pub(in crate::testing) fn path_of(&self, link: usize) -> Option<(PathKind, SocketAddr)> {
        let link = self.links.get(link)?;
        let way = link.paths.active().source;
        let relayed = self.is_relay(way.socket) || self.is_relay_of_a_peer(way.addr);
        let kind = if relayed { PathKind::Relayed } else { PathKind::of(way.addr, link.punched) };
        Some((kind, way.addr))
    }

    pub(in crate::testing) fn settle_links(&mut self) -> bool {
        let mut moved = false;
        for handle in self.links.all.keys().copied().collect::<Vec<_>>() {
            moved |= self.settle_link(handle);
        }
        moved
    }

    fn settle_link(&mut self, number: usize) -> bool {
        let (handle, now) = (QuicHandle(number), self.now);
        let Some(mut link) = self.links.all.remove(&number) else { return false };
        let (mut moved, mut gone, mut after) = (false, false, Vec::new());
        while let Some((way, bytes)) = link.paths.poll_transmit() {
            self.send(way.source, &bytes, None);
        }
        if link.paths.poll_answered_again() {
            link.connection.resume(now);
        }
        let mut news = link.paths.poll_cut_off();
        while let Some(change) = link.paths.poll_move() {
            news = true;
            link.changes += 1;
            link.connection.path_changed(now, change.same_path);
        }
        self.events.extend(news.then_some(NodeEvent::PathNews));
        link.connection.release_held();
        while let Some(event) = link.connection.poll_event(now) {
            moved = true;
            self.handle_event(handle, &mut link, event, &mut after);
        }
        moved |= link.pump(&mut self.streams);
        link.connection.release_held();
        let mut buffer = Vec::new();
        while let Some(outgoing) = link.connection.poll_transmit(now, SEGMENTS, &mut buffer) {
            moved = true;
            link.paths.sent(now);
            let segment = outgoing.segment_bytes.unwrap_or(outgoing.bytes);
            for datagram in buffer[..outgoing.bytes].chunks(segment) {
                self.send(link.paths.active().source, datagram, None);
            }
        }
        while let Some(event) = link.connection.poll_endpoint_event() {
            moved = true;
            gone |= event.is_drained();
            if let Some(input) = self.links.endpoint.handle_event(handle, event) {
                link.connection.handle_input(now, input);
            }
        }
        if gone {
            self.leave_reunion(&link);
        } else {
            self.links.all.insert(number, link);
        }
        moved |= !after.is_empty();
        for one in after {
            self.follow(number, one);
        }
        moved
    }

    fn handle_event(
        &mut self,
        handle: QuicHandle,
        link: &mut Link,
        event: QuicEvent,
        after: &mut Vec<After>,
    ) {
        match event {
            QuicEvent::Readable(_) | QuicEvent::Writable(_) | QuicEvent::Acknowledged(_) => {}
            QuicEvent::Connected { .. } => {
                let keys = link.connection.check_keys();
                link.tag = keys.as_ref().map(CheckKeys::tag);
                if let Some(keys) = keys {
                    link.paths.connected(keys);
                }
                link.connection.grow_window(self.links.endpoint.lend_first_window(handle));
                self.ask_for_rendezvous(link, after);
                if let Kind::Shared { expected } = link.kind
                    && link.opening.values().any(Dial::may_move)
                {
                    self.links.reunion.asked(expected, link.number);
                }
            }
            QuicEvent::WindowWanted(bytes) => {
                link.connection.grow_window(self.links.endpoint.lend_window(handle, bytes));
            }
            QuicEvent::Preface { stream, preface } => self.judge(handle, link, stream, &preface, after),
            QuicEvent::Opened { ticket, stream } => match link.opening.remove(&ticket) {
                Some(dial) => drop(link.judging.insert(stream, dial)),
                None => {
                    link.connection.reset(self.now, stream, 0);
                    link.connection.release(self.now, stream);
                }
            },
            QuicEvent::Verdict { stream, verdict } => self.judged(link, stream, verdict, after),
            QuicEvent::Ended(end) => self.ended(link, &end, after),
        }
    }

    /// A rendezvous asks for its stream on one connection only; the others have served.
    fn ask_for_rendezvous(&mut self, link: &mut Link, after: &mut Vec<After>) {
        let held: Vec<u64> =
            link.opening.iter().filter(|(_, dial)| dial.is_held()).map(|(ticket, _)| *ticket).collect();
        for ticket in held {
            let dial = &link.opening[&ticket];
            let (Purpose::Rendezvous(tag), Caller::Meeting { attempt, .. }) =
                (dial.preface.purpose, dial.caller)
            else {
                continue;
            };
            if self.known.may_ask(self.now, tag, attempt) {
                link.connection.open(ticket, &dial.preface);
            } else if let Some(dial) = link.opening.remove(&ticket) {
                after.push(After::Ended { dial, outcome: Err(Failure::NotChosen) });
                link.connection.close(self.now);
            }
        }
    }

    fn judge(
        &mut self,
        handle: QuicHandle,
        link: &mut Link,
        stream: QuicStreamId,
        preface: &Preface,
        after: &mut Vec<After>,
    ) {
        let Some(peer) = link.connection.peer() else { return };
        match self.place(link, peer, preface, after) {
            Ok(meeting) => {
                link.connection.answer(self.now, stream, Verdict::Accepted);
                self.links.endpoint.admitted(handle);
                let id = self.hold(handle.0, link, stream, peer, &preface.label);
                self.events.extend(meeting.is_none().then_some(NodeEvent::Accepted(id)));
                if let Some(meeting) = meeting {
                    link.punched |= self.comes_by_hole(meeting);
                    self.arrived(meeting, id);
                }
            }
            Err(reason) => link.connection.answer(self.now, stream, Verdict::Refused(reason)),
        }
    }

    /// Where a stream that came in goes: to a meeting, or to whoever accepts; or why it goes nowhere.
    fn place(
        &mut self,
        link: &Link,
        peer: PublicKey,
        preface: &Preface,
        after: &mut Vec<After>,
    ) -> Result<Option<MeetingId>, Refusal> {
        if let Purpose::Rendezvous(tag) = preface.purpose {
            let arrived = self.known.arrived(self.now, tag, &peer, &preface.label);
            return arrived.map(Some).map_err(|_| Refusal::Rendezvous);
        }
        if let Kind::Incoming { begun } = link.kind
            && !preface.stays
        {
            match self.links.reunion.arrived(peer, link.number, begun, self.config.listens) {
                Ruling::Stays => {}
                Ruling::Welcome => after.push(After::Welcome),
                Ruling::Elsewhere => return Err(Refusal::Elsewhere),
            }
        }
        match (self.config.listens, link.kind) {
            (true, _) => Ok(None),
            (false, Kind::Incoming { .. }) => Err(Refusal::Full),
            (false, _) => Err(Refusal::Elsewhere),
        }
    }

    fn judged(&mut self, link: &mut Link, stream: QuicStreamId, verdict: Verdict, after: &mut Vec<After>) {
        let Some(dial) = link.judging.remove(&stream) else { return };
        if let (Kind::Shared { expected }, true) = (link.kind, dial.may_move()) {
            self.links.reunion.confirmed(self.now, expected, link.number);
        }
        match verdict {
            Verdict::Accepted => {
                after.push(After::Ended { dial, outcome: Ok(stream) });
            }
            Verdict::Refused(Refusal::Elsewhere) if dial.may_move() => {
                link.connection.release(self.now, stream);
                match link.kind {
                    Kind::Shared { .. } => after.push(After::Elsewhere(dial)),
                    Kind::Incoming { .. } | Kind::Alone => {
                        self.links.reunion.one_way(dial.expected, link.number);
                        after.push(After::Again(dial.once_more(Round::Last)));
                    }
                }
            }
            Verdict::Refused(reason) => {
                link.connection.release(self.now, stream);
                after.push(After::Ended { dial, outcome: Err(Failure::Refused(reason)) });
            }
        }
    }

    fn ended(&mut self, link: &mut Link, end: &ConnectionEnd, after: &mut Vec<After>) {
        self.leave_reunion(link);
        let ended = Ended {
            end,
            was_up: link.connection.peer().is_some(),
            is_shared: matches!(link.kind, Kind::Shared { .. }),
        };
        let opening = std::mem::take(&mut link.opening).into_values();
        let judging = std::mem::take(&mut link.judging).into_values();
        for dial in opening.chain(judging) {
            after.push(match dial.round.after(ended) {
                Some(round) => After::Again(dial.once_more(round)),
                None => {
                    let failure = match end {
                        ConnectionEnd::WrongPeer => Failure::WrongPeer,
                        other => Failure::Other(format!("{other:?}")),
                    };
                    After::Ended { dial, outcome: Err(failure) }
                }
            });
        }
        after.push(After::Over(link.number));
    }
}

/// Datagrams in one go.
const SEGMENTS: usize = 10;
