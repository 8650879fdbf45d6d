//! Meetings as they go on.

use std::net::SocketAddr;

use nat_traversal::{
    AddrKind,
    protocol::{Datagram, Machine as _, PunchEvent, SocketIndex},
};

use super::{Aim, MeetingId, RELAY, Running};
use crate::{
    PathKind, Refusal, RendezvousRoad,
    protocol::{
        offer::Hole,
        paths::UdpSource,
        preface::Purpose,
        punching::{RELAYS_AFTER, reachable},
    },
    testing::{
        call::{Begin, Found},
        links::{Dial, Failure},
        node::{Node, NodeEvent, StreamId, preface},
    },
};

impl Node {
    /// Whether any peer has that address at a relay, by what it has told.
    pub(in crate::testing) fn is_relay_of_a_peer(&self, addr: SocketAddr) -> bool {
        self.relayed.contains(&addr)
    }

    pub(in crate::testing) fn take_stun(&mut self, datagram: Datagram<'_>) {
        for meeting in self.meetings.values_mut() {
            if datagram.socket == SocketIndex::MAIN
                && let Some(mapper) = &mut meeting.mapper
            {
                mapper.handle_datagram(self.now, datagram);
            }
            let Some(running) = &mut meeting.running else { continue };
            let Some(socket) = running.index_of(datagram.socket) else { continue };
            if let Some(puncher) = &mut running.puncher {
                puncher.handle_datagram(self.now, Datagram { socket, ..datagram });
            }
        }
    }

    pub(in crate::testing) fn handle_meeting_timers(&mut self) {
        for meeting in self.meetings.values_mut() {
            if let Some(mapper) = &mut meeting.mapper {
                mapper.handle_timeout(self.now);
            }
            if let Some(puncher) = meeting.running.as_mut().and_then(|running| running.puncher.as_mut()) {
                puncher.handle_timeout(self.now);
            }
        }
    }

    pub(in crate::testing) fn settle_meetings(&mut self) -> bool {
        let mut moved = false;
        for id in self.meetings.keys().copied().collect::<Vec<_>>() {
            moved |= self.turn_mapper(id);
            moved |= self.take_news(id);
            moved |= self.dial_listeners(id);
            moved |= self.begin_again(id);
            moved |= self.turn_punch(id);
            moved |= self.conclude(id);
        }
        moved
    }

    fn turn_mapper(&mut self, id: MeetingId) -> bool {
        let Some(meeting) = self.meetings.get_mut(&id) else { return false };
        let Some(mapper) = &mut meeting.mapper else { return false };
        let mut out = Vec::new();
        while let Some(transmit) = mapper.poll_transmit() {
            out.push(transmit);
        }
        let (mut seen, mut over) = (mapper.so_far().unwrap_or_default(), false);
        if let Some(mapping) = mapper.poll_event() {
            (seen, over) = (mapping.addresses, true);
        }
        let news = !seen.is_empty() && seen != meeting.told;
        if news {
            meeting.told.clone_from(&seen);
            meeting.changed |= meeting.telling.mapped(Hole::UdpV4, seen);
            self.events.push_back(NodeEvent::News(id));
        }
        if over {
            meeting.mapper = None;
            self.events.push_back(NodeEvent::Gathered(id));
        }
        for transmit in out {
            let source = UdpSource { socket: 0, addr: transmit.destination };
            self.send(source, &transmit.bytes, transmit.hops);
        }
        news || over
    }

    /// Has a call take in what either side has learned since.
    fn take_news(&mut self, id: MeetingId) -> bool {
        let now = self.now;
        let relay = self.relay_in_use().map(|relay| relay.socket);
        let Some(meeting) = self.meetings.get_mut(&id) else { return false };
        let Some(running) = &mut meeting.running else { return false };
        if !std::mem::take(&mut meeting.changed) {
            return false;
        }
        let (theirs, ours) = (meeting.theirs.take(), meeting.telling.endpoints());
        let more = meeting.telling.more();
        let relay = relay.filter(|_| meeting.ways.contains(PathKind::Relayed));
        let (told, ours, wanted, more, relays_from) = match &mut running.aim {
            Aim::Stream(call) => {
                call.learn(now, theirs, ours, more);
                let Some(told) = call.theirs() else { return true };
                (told, call.ours(Hole::UdpV4), meeting.ways, call.more(), call.relays_from())
            }
            Aim::Path { search, .. } => {
                search.learn(theirs, ours, more);
                let (ours, wanted) = (search.ours(Hole::UdpV4), search.wanted());
                (search.theirs(), ours, wanted, search.more(), running.begun + RELAYS_AFTER)
            }
        };
        let theirs = told.endpoints(Hole::UdpV4);
        for endpoint in theirs {
            if endpoint.kind == AddrKind::Relayed && !self.relayed.contains(&endpoint.addr) {
                self.relayed.push(endpoint.addr);
            }
        }
        let Some(puncher) = &mut running.puncher else { return true };
        let relay = relay.filter(|_| wanted.contains(PathKind::Relayed));
        if relay.is_some() {
            puncher.add_socket(now, RELAY, theirs, relays_from);
        }
        puncher.learn(now, ours, &reachable(theirs, wanted), more);
        meeting.vouched.iter().for_each(|ip| puncher.vouch(now, *ip));
        let is_new = running.relay.is_none();
        running.relay = running.relay.or(relay);
        let Aim::Stream(call) = &mut running.aim else { return true };
        if let Some(relay) = relay.filter(|_| is_new) {
            call.add_relay(usize::from(relay.0));
        }
        if running.blindly {
            for begin in call.begin_blindly(now, Hole::UdpV4, 0, &meeting.vouched) {
                self.begin_attempt(id, begin);
            }
        }
        true
    }

    fn running(&mut self, id: MeetingId) -> Option<&mut Running> {
        self.meetings.get_mut(&id).and_then(|meeting| meeting.running.as_mut())
    }

    fn dial_listeners(&mut self, id: MeetingId) -> bool {
        let mut moved = false;
        loop {
            let now = self.now;
            let Some(call) = self.running(id).and_then(Running::call_mut) else { return moved };
            let Some(begin) = call.poll_dial(now).or_else(|| call.poll_released(now)) else { return moved };
            self.begin_attempt(id, begin);
            moved = true;
        }
    }

    /// Begins anew where QUIC was begun blindly, the peer was heard since, and does not answer.
    fn begin_again(&mut self, id: MeetingId) -> bool {
        let mut moved = false;
        loop {
            let now = self.now;
            let Some(running) = self.running(id) else { return moved };
            let Some(attempt) = running.call_mut().and_then(|call| call.poll_again(now)) else {
                return moved;
            };
            moved = true;
            let ticket = running.dials.get(&attempt).copied();
            if ticket.is_some_and(|ticket| self.links.is_unanswered(ticket)) {
                let call = self.running(id).and_then(Running::call_mut);
                let begin = call.map(|call| call.begin_again(now, attempt));
                begin.into_iter().for_each(|begin| self.begin_attempt(id, begin));
            }
        }
    }

    fn begin_attempt(&mut self, id: MeetingId, begin: Begin) {
        let ticket = self.number();
        let Some(running) = self.meetings.get_mut(&id).and_then(|meeting| meeting.running.as_mut()) else {
            return;
        };
        let (addr, over_punch) = match begin.road {
            RendezvousRoad::Listener { remote, .. } => (remote, false),
            RendezvousRoad::Punched { remote: Some(remote), .. } => (remote, true),
            _ => return,
        };
        running.dials.insert(begin.attempt, ticket);
        let preface = preface(Purpose::Rendezvous(running.tag), &running.label, true);
        let to = UdpSource { socket: begin.via.unwrap_or_default(), addr };
        let dial = Dial::of_meeting(ticket, (id, begin.attempt), to, running.peer, preface, over_punch);
        self.begin_dial(dial);
    }

    /// An attempt of a meeting has ended.
    pub(in crate::testing) fn attempt_ended(
        &mut self,
        id: MeetingId,
        attempt: usize,
        outcome: Result<StreamId, Failure>,
    ) {
        let now = self.now;
        let Some(running) = self.meetings.get_mut(&id).and_then(|meeting| meeting.running.as_mut()) else {
            // Nobody waits for it any more.
            if let Ok(stream) = outcome {
                self.forget_stream(stream);
            }
            return;
        };
        running.dials.remove(&attempt);
        match outcome {
            Ok(stream) => self.met(id, Ok(stream)),
            Err(Failure::Refused(reason)) if reason != Refusal::Rendezvous => {
                self.met(id, Err(format!("refused: {reason}")));
            }
            Err(failure) => {
                self.known.attempt_failed(running.tag, attempt);
                if let Some(call) = running.call_mut() {
                    call.attempt_failed(now, attempt, failure == Failure::WrongPeer, &failure);
                }
            }
        }
    }

    /// Whether the peer comes to that meeting by a hole, as it does if it leads.
    pub(in crate::testing) fn comes_by_hole(&self, id: MeetingId) -> bool {
        let running = self.meetings.get(&id).and_then(|meeting| meeting.running.as_ref());
        let by_hole = |running: &Running| Some(running.call()?.comes_by_hole(running.puncher.is_some()));
        running.and_then(by_hole).unwrap_or(false)
    }

    /// The stream that the peer asks for has come in.
    pub(in crate::testing) fn arrived(&mut self, id: MeetingId, stream: StreamId) {
        self.met(id, Ok(stream));
    }

    fn met(&mut self, id: MeetingId, outcome: Result<StreamId, String>) {
        if self.take_meeting(id).is_some() {
            self.events.push_back(NodeEvent::Met(id, outcome));
        } else if let Ok(stream) = outcome {
            self.forget_stream(stream);
        }
    }

    fn forget_stream(&mut self, stream: StreamId) {
        if let Some(held) = self.streams.remove(&stream) {
            self.release(&held);
        }
    }

    fn turn_punch(&mut self, id: MeetingId) -> bool {
        let mut moved = false;
        loop {
            let running = self.meetings.get_mut(&id).and_then(|meeting| meeting.running.as_mut());
            let Some(running) = running else { return moved };
            let Some(puncher) = &mut running.puncher else { return moved };
            let mut out = Vec::new();
            while let Some(transmit) = puncher.poll_transmit() {
                let socket = match transmit.socket {
                    SocketIndex::MAIN => 0,
                    RELAY => running.relay.map_or(0, |relay| relay.0),
                    other => *running.sockets.entry(other).or_insert_with(|| {
                        self.sockets += 1;
                        self.sockets - 1
                    }),
                };
                out.push((UdpSource { socket: socket.into(), addr: transmit.destination }, transmit));
            }
            let event = puncher.poll_event();
            moved |= event.is_some();
            for (source, transmit) in out {
                self.send(source, &transmit.bytes, transmit.hops);
            }
            let Some(event) = event else { return moved };
            self.handle_punch(id, event);
        }
    }

    fn handle_punch(&mut self, id: MeetingId, event: PunchEvent) {
        let now = self.now;
        let Some(running) = self.meetings.get_mut(&id).and_then(|meeting| meeting.running.as_mut()) else {
            return;
        };
        let of_node = |running: &Running, socket| match socket {
            SocketIndex::MAIN => 0,
            RELAY => running.relay.map_or(0, |relay| usize::from(relay.0)),
            other => usize::from(running.sockets.get(&other).copied().unwrap_or_default()),
        };
        match event {
            PunchEvent::Hopeless(obstacle) => {
                running.puncher = None;
                let begun = running.begun;
                if let Some(call) = running.call_mut() {
                    call.fail(now, RendezvousRoad::UdpPunch { v6: false }, begun, &obstacle);
                }
            }
            PunchEvent::Heard { socket, peer } | PunchEvent::Punched { socket, peer } => {
                let way = UdpSource { socket: of_node(running, socket), addr: peer };
                let punched = matches!(event, PunchEvent::Punched { .. });
                if punched {
                    running.puncher = None;
                }
                match &mut running.aim {
                    Aim::Path { link, search } if punched => {
                        search.offered(way);
                        let link = *link;
                        self.links.offer(now, link, way);
                    }
                    Aim::Path { .. } => {}
                    Aim::Stream(call) => {
                        if punched {
                            call.handle_punched();
                        }
                        if let Found::Dial(begin) = call.handle_way(now, way, punched) {
                            self.begin_attempt(id, begin);
                        }
                    }
                }
            }
        }
    }

    /// Ends a meeting that has come to its end by itself.
    fn conclude(&mut self, id: MeetingId) -> bool {
        let now = self.now;
        let Some(running) = self.meetings.get(&id).and_then(|meeting| meeting.running.as_ref()) else {
            return false;
        };
        let is_punching = running.puncher.is_some();
        let call = match &running.aim {
            Aim::Stream(call) => call,
            Aim::Path { link, search } => {
                let is_late = now >= running.deadline || search.is_hopeless(is_punching);
                let outcome = match self.standing(*link) {
                    None => Some(Err("the connection is over".to_owned())),
                    Some(standing) if search.is_over(standing) => Some(Ok(())),
                    Some(_) => is_late.then(|| Err("no better path was found".to_owned())),
                };
                let Some(outcome) = outcome else { return false };
                drop(self.take_meeting(id));
                self.events.push_back(NodeEvent::Improved(id, outcome));
                return true;
            }
        };
        if now < running.deadline && !call.is_hopeless(is_punching) {
            return false;
        }
        let punching = running
            .puncher
            .as_ref()
            .map(|puncher| (RendezvousRoad::UdpPunch { v6: false }, puncher.obstacle().to_string()));
        let punching: Vec<_> = punching.into_iter().collect();
        let call = self.running(id).and_then(Running::call_mut);
        let failures = call.map(|call| call.failures(now, punching));
        self.met(id, Err(format!("no way: {failures:?}")));
        true
    }
}
