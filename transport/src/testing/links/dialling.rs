//! Dials of a node: where each goes on, and who is told.

use nat_traversal::protocol::Seed;

use super::{After, Caller, Dial, Failure, Kind, Link, PATH, Purse};
use crate::{
    PathKind, ProtocolLabel, PublicKey,
    protocol::{quic::QuicStreamId, rounds::Round},
    testing::node::{DialId, Held, Node, NodeEvent, StreamId},
};

impl Node {
    /// Begins a dial, over a connection that is there or a new one.
    pub(in crate::testing) fn begin_dial(&mut self, dial: Dial) {
        let alone = dial.is_held();
        let (asks, expected) = (dial.may_move() && !alone, dial.expected);
        let known = if alone || dial.round == Round::Last { None } else { self.links.shared(&dial) };
        let handle = match known {
            Some(handle) => handle,
            None => {
                let begun = self.links.endpoint.dial(self.now, dial.to, expected, PATH, alone);
                let (handle, connection) = match begun {
                    Ok(begun) => begun,
                    Err(error) => return self.dial_ended(dial, Err(Failure::Other(error.to_string()))),
                };
                let kind = if alone { Kind::Alone } else { Kind::Shared { expected } };
                let seed = Seed::from_bytes(self.random.bytes());
                self.links.enter(handle, connection, kind, dial.to, seed);
                handle.0
            }
        };
        let link = self.links.all.get_mut(&handle).expect("it was just found or made");
        if !alone {
            self.links.reunion.dialling(expected, link.number);
        }
        link.begin_dial(dial);
        if asks && link.connection.peer().is_some() {
            self.links.reunion.asked(expected, link.number);
        }
        // A guest may have come since it was looked for, and found no dial to take.
        if asks && let Some(guest) = self.links.guest(expected) {
            self.hand_over(handle, guest);
        }
    }

    /// Dials that wait for the handshake of the one go over the other.
    pub(super) fn hand_over(&mut self, from: usize, to: usize) {
        let Some(link) = self.links.all.get_mut(&from) else { return };
        let mut given = Vec::new();
        if link.connection.peer().is_none() {
            given.extend(link.opening.extract_if(.., |_, dial| dial.may_move()));
            for (ticket, _) in &given {
                link.connection.cancel_open(self.now, *ticket);
            }
        }
        link.close_if_idle(self.now);
        for (_, dial) in given {
            self.move_dial(to, dial);
        }
    }

    pub(super) fn move_dial(&mut self, to: usize, dial: Dial) {
        match self.links.all.get_mut(&to) {
            Some(link) => link.begin_dial(dial),
            None => self.begin_dial(dial),
        }
    }

    /// Nobody waits for that dial any more.
    pub(in crate::testing) fn cancel_dial(&mut self, ticket: u64) {
        self.links.parked.retain(|(_, dial)| dial.ticket != ticket);
        for link in self.links.all.values_mut() {
            let opening = link.opening.remove(&ticket).is_some();
            if opening {
                link.connection.cancel_open(self.now, ticket);
            }
            let judged =
                link.judging.iter().find(|(_, dial)| dial.ticket == ticket).map(|(stream, _)| *stream);
            if let Some(stream) = judged {
                link.judging.remove(&stream);
                link.connection.reset(self.now, stream, 0);
                link.connection.release(self.now, stream);
            }
            if !opening && judged.is_none() {
                continue;
            }
            if let Kind::Shared { expected } = link.kind
                && link.opening.is_empty()
                && link.judging.is_empty()
            {
                self.links.reunion.withdrawn(expected, link.number);
            }
            if link.connection.peer().is_none() && link.opening.is_empty() {
                link.connection.close(self.now);
            }
        }
    }

    pub(in crate::testing) fn release(&mut self, held: &Held) {
        if let Some(link) = self.links.all.get_mut(&held.link)
            && link.streams.remove(&held.stream).is_some()
        {
            link.connection.release(self.now, held.stream);
        }
    }

    pub(super) fn hold(
        &mut self,
        number: usize,
        link: &mut Link,
        stream: QuicStreamId,
        peer: PublicKey,
        label: &ProtocolLabel,
    ) -> StreamId {
        let id = StreamId(self.number());
        link.streams.insert(stream, id);
        let path = (PathKind::Direct, link.paths.active().source.addr);
        let purse = Purse::default();
        self.streams.insert(id, Held { peer, label: label.clone(), link: number, stream, purse, path });
        id
    }

    pub(super) fn leave_reunion(&mut self, link: &Link) {
        let peer = match link.kind {
            Kind::Shared { expected } => Some(expected),
            Kind::Incoming { .. } => link.connection.peer(),
            Kind::Alone => None,
        };
        if let Some(peer) = peer {
            self.links.reunion.ended(peer, link.number);
        }
    }

    /// Does what follows for others, now that the connection is back in its place.
    pub(super) fn follow(&mut self, number: usize, after: After) {
        match after {
            After::Ended { dial, outcome } => {
                let outcome = outcome.and_then(|stream| {
                    let mut link =
                        self.links.all.remove(&number).ok_or_else(|| Failure::Other("gone".to_owned()))?;
                    let id = self.hold(number, &mut link, stream, dial.expected, &dial.preface.label);
                    self.links.all.insert(number, link);
                    Ok(id)
                });
                self.dial_ended(dial, outcome);
            }
            After::Again(dial) => {
                self.links.again += 1;
                match self.links.guest(dial.expected).filter(|_| dial.may_move()) {
                    Some(guest) => self.move_dial(guest, dial),
                    None => self.begin_dial(dial),
                }
            }
            After::Elsewhere(dial) => match self.links.guest(dial.expected) {
                Some(guest) => {
                    self.move_dial(guest, dial);
                    if let Some(link) = self.links.all.get_mut(&number) {
                        link.close_if_idle(self.now);
                    }
                }
                // It stays, lest what waits for the peer's be begun anew.
                None => {
                    let from = self.links.all.get(&number).map_or(0, |link| link.number);
                    self.links.parked.push((from, dial));
                }
            },
            After::Welcome => self.welcome(number),
            After::Over(from) => {
                let parked: Vec<_> = self.links.parked.extract_if(.., |(known, _)| *known == from).collect();
                for (_, dial) in parked {
                    let round = dial.round.next().unwrap_or(Round::Last);
                    self.follow(number, After::Again(dial.once_more(round)));
                }
            }
        }
    }

    /// The peer's own connection takes our dials to it: those that wait for a handshake, and those that it sent on.
    pub(super) fn welcome(&mut self, guest: usize) {
        let Some(peer) = self.links.all.get(&guest).and_then(|link| link.connection.peer()) else { return };
        let to_peer = |link: &Link| link.kind == Kind::Shared { expected: peer };
        let dialled: Vec<usize> =
            self.links.all.iter().filter(|(_, link)| to_peer(link)).map(|(handle, _)| *handle).collect();
        let parked: Vec<_> = self.links.parked.extract_if(.., |(_, dial)| dial.expected == peer).collect();
        for from in dialled {
            self.hand_over(from, guest);
        }
        for (_, dial) in parked {
            self.move_dial(guest, dial);
        }
    }

    pub(super) fn dial_ended(&mut self, dial: Dial, outcome: Result<StreamId, Failure>) {
        match dial.caller {
            Caller::Application => {
                let outcome = outcome.map_err(|failure| failure.to_string());
                self.events.push_back(NodeEvent::Dialled(DialId(dial.ticket), outcome));
            }
            Caller::Meeting { meeting, attempt } => self.attempt_ended(meeting, attempt, outcome),
        }
    }
}
