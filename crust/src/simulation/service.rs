//! A service in memory: a node, and the machines of `protocol` above it, driven as the threads of a service drive them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nat_traversal::{
    protocol::{Datagram, Seed, Transmit, turn::TurnCredentials},
    testing::Program,
};
use transport::{
    Identity, PathKind, ProtocolLabel, PublicKey,
    testing::{DialId, MeetingId, MeetingOptions, Node, NodeConfig, NodeEvent, StreamId},
};

use super::{
    calls::{Connect, Introduced},
    detours::Detour,
    hosting::Hosting,
    ringing::Ringing,
};
use crate::{
    gate::Gate,
    protocol::{
        attachment::Attachment,
        detours::Detours,
        introducer::frame::{Frame, Frames},
        outside::Outside,
    },
};

/// One service.
pub(super) struct Service {
    pub(super) node: Node,
    pub(super) gate: Gate,
    pub(super) now: Instant,
    pub(super) local: SocketAddr,
    pub(super) attachments: Vec<Attached>,
    pub(super) hosting: Option<Hosting>,
    pub(super) connects: Vec<Connect>,
    pub(super) introduced: BTreeMap<u64, Introduced>,
    pub(super) ringing: BTreeMap<(StreamId, u32), Ringing>,
    pub(super) improving: Detours<Detour>,
    learning: BTreeMap<MeetingId, Learning>,
    outside: Outside,
    relay: Option<Relay>,
    /// Half-read frames of streams to introducers and clients.
    pub(super) pipes: BTreeMap<StreamId, Frames>,
    /// Streams that peers have opened, for whoever accepts.
    pub(super) accepted: Vec<StreamId>,
    pub(super) log: Vec<(Instant, Happening)>,
    pub(super) next: u64,
}

/// What a service tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Happening {
    Attached,
    Detached,
    Connected(u64, StreamId, PathKind),
    NotConnected(u64, String),
    Accepted(StreamId, PathKind),
    Improved(bool),
    /// An attempt to find a connection another path has begun; whether it is cut off.
    Improves(bool),
    /// Why the last attempt came to nothing.
    NotImproved(String),
    /// A meeting of a peer that knocked came to nothing.
    NotMet(String),
}

/// An introducer that is kept in touch with.
pub(super) struct Attached {
    pub(super) addr: SocketAddr,
    pub(super) key: PublicKey,
    pub(super) attachment: Attachment,
    pub(super) dial: Option<(DialId, Instant)>,
    pub(super) stream: Option<StreamId>,
}

/// What is being learned for a meeting.
struct Learning {
    gathered: bool,
    relay: bool,
    until: Instant,
}

struct Relay {
    server: SocketAddr,
    credentials: TurnCredentials,
    is_asked: bool,
}

impl Service {
    pub(super) fn new(
        now: Instant,
        identity: Identity,
        local: SocketAddr,
        servers: &[SocketAddr],
        rank: u8,
        seed: &Seed,
    ) -> Self {
        let config = NodeConfig {
            local,
            listens: true,
            dead_after: Duration::from_secs(30),
            servers: servers.to_vec(),
            rank,
        };
        Self {
            node: Node::new(now, identity, config, seed),
            gate: Gate {
                open: true,
                allowed: None,
                blocked: [].into(),
                protocols: [ProtocolLabel::default()].into(),
                token: None,
                network: transport::NetworkName::default(),
            },
            now,
            local,
            attachments: Vec::new(),
            hosting: None,
            connects: Vec::new(),
            introduced: BTreeMap::new(),
            ringing: BTreeMap::new(),
            improving: Detours::default(),
            learning: BTreeMap::new(),
            outside: Outside::default(),
            relay: None,
            pipes: BTreeMap::new(),
            accepted: Vec::new(),
            log: Vec::new(),
            next: 0,
        }
    }

    /// Introduces others from now on.
    pub(super) fn host(mut self) -> Self {
        self.hosting = Some(Hosting::default());
        self
    }

    /// May use that relay.
    pub(super) fn relayed_by(mut self, server: SocketAddr, credentials: TurnCredentials) -> Self {
        self.relay = Some(Relay { server, credentials, is_asked: false });
        self
    }

    /// Knows that introducer; `attaches`: and keeps in touch with it.
    pub(super) fn know(&mut self, now: Instant, addr: SocketAddr, key: PublicKey, attaches: bool) {
        let mut attachment = Attachment::new(now, self.next + 7);
        if !attaches {
            // Counts as being dialled for ever.
            assert!(attachment.poll_dial(now));
        }
        self.attachments.push(Attached { addr, key, attachment, dial: None, stream: None });
    }

    pub(super) fn key(&self) -> PublicKey {
        self.node.public_key()
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn tell(&mut self, what: Happening) {
        self.log.push((self.now, what));
    }

    /// This host has come into another network, as the thread `crust-io` deals with it.
    pub(super) fn network_changed(&mut self, now: Instant, local: SocketAddr) {
        (self.now, self.local) = (now, local);
        self.node.network_changed(now, local);
        self.outside = Outside::default();
        if let Some(relay) = &mut self.relay {
            relay.is_asked = false;
        }
        self.improving.handle_network_change(now);
        self.interrupt_attempts();
        for index in 0..self.attachments.len() {
            let attached = &mut self.attachments[index];
            if attached.attachment.handle_network_change(now)
                && let Some(stream) = attached.stream
            {
                self.send(stream, &Frame::Attach);
            }
        }
        self.turn();
    }

    /// Ends everything, as the drop of a service does.
    pub(super) fn close(&mut self, now: Instant) {
        self.now = now;
        self.attachments.clear();
        self.connects.clear();
        self.introduced.clear();
        self.ringing.clear();
        self.learning.clear();
        self.pipes.clear();
        self.hosting = None;
        self.improving = Detours::default();
        self.node.close(now);
        self.turn();
    }

    /// What is left of all that was under way.
    pub(super) fn entries(&self) -> usize {
        self.node.entries()
            + self.connects.len()
            + self.introduced.len()
            + self.ringing.len()
            + self.learning.len()
            + self.pipes.len()
    }

    /// Opens a meeting and learns what there is to know for it.
    pub(super) fn open_meeting(&mut self, second: bool, relayed: bool) -> MeetingId {
        let (now, hosts) = (self.now, vec![self.local]);
        let known = self.outside.known(now, &hosts).into_iter().flat_map(|(_, seen)| seen).collect();
        let options = MeetingOptions { second, known, without_relay: !relayed, listeners: Vec::new() };
        let meeting = self.node.open_meeting(now, &options);
        let waits = self.relay.is_some() && relayed && self.node.relayed_address().is_none();
        if let Some(relay) = self.relay.as_mut().filter(|relay| waits && !relay.is_asked) {
            relay.is_asked = true;
            self.node.ask_for_relay(now, relay.server, relay.credentials.clone());
        }
        self.learning.insert(meeting, Learning { gathered: false, relay: !waits, until: now + PATIENCE });
        meeting
    }

    /// A connection is cut off: if it goes over our relay, the next meeting asks for another one.
    pub(super) fn doubt_relay(&mut self, stream: StreamId) {
        if self.node.doubt_relay(stream)
            && let Some(relay) = &mut self.relay
        {
            relay.is_asked = false;
        }
    }

    /// The relay has answered, or does not serve.
    fn relay_told(&mut self, serves: bool) {
        if let Some(relay) = self.relay.as_mut().filter(|_| !serves) {
            relay.is_asked = false;
        }
        for meeting in self.learning.keys().copied().collect::<Vec<_>>() {
            if serves {
                self.node.add_relay(self.now, meeting);
                self.say(meeting);
            }
            if let Some(learning) = self.learning.get_mut(&meeting) {
                learning.relay = true;
            }
            self.learned(meeting);
        }
    }

    /// Says so if nothing more is learned for a meeting.
    fn learned(&mut self, meeting: MeetingId) {
        let now = self.now;
        let over = |learning: &Learning| learning.gathered && learning.relay || learning.until <= now;
        if !self.learning.get(&meeting).is_some_and(over) {
            return;
        }
        self.learning.remove(&meeting);
        let seen = self.node.seen(meeting);
        if !seen.is_empty() {
            self.outside.learned(now, vec![self.local], vec![(self.local, seen)]);
        }
        self.node.complete(now, meeting);
        self.say(meeting);
    }

    /// Tells the peer of a meeting what is new.
    pub(super) fn say(&mut self, meeting: MeetingId) {
        let Self { introduced, ringing, .. } = self;
        let ours = introduced.values_mut().find_map(|one| one.saying_of(meeting));
        let theirs = ringing.iter_mut().find_map(|((through, call), one)| {
            one.saying_of(meeting).map(|saying| (*through, *call, saying))
        });
        let Some((through, call, saying)) = ours.or(theirs) else { return };
        let offer = self.node.offer(meeting);
        if let Some(note) = saying.note(offer.to_bytes(), offer.has_more_to_come()) {
            self.send(through, &Frame::Note { call, note });
        }
    }

    pub(super) fn send(&mut self, stream: StreamId, frame: &Frame) {
        self.node.write(self.now, stream, &frame.encode());
    }

    /// Lets everything go on until nothing moves.
    pub(super) fn turn(&mut self) {
        loop {
            let mut moved = false;
            while let Some(event) = self.node.poll_event() {
                moved = true;
                self.handle_event(event);
            }
            moved |= self.read_pipes();
            moved |= self.attach();
            moved |= self.go_on_calling();
            moved |= self.go_on_improving();
            moved |= self.carry_out_orders();
            if !moved {
                return;
            }
        }
    }

    fn handle_event(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Dialled(dial, outcome) => self.dialled(dial, outcome),
            NodeEvent::Accepted(stream) => self.accept(stream),
            NodeEvent::News(meeting) => self.say(meeting),
            NodeEvent::Gathered(meeting) => {
                if let Some(learning) = self.learning.get_mut(&meeting) {
                    learning.gathered = true;
                }
                self.learned(meeting);
            }
            NodeEvent::Met(meeting, outcome) => {
                self.learning.remove(&meeting);
                if !self.call_met(meeting, &outcome) {
                    self.ring_met(meeting, outcome);
                }
            }
            NodeEvent::Improved(meeting, outcome) => {
                self.learning.remove(&meeting);
                if !self.call_improved(meeting, &outcome) {
                    self.ring_improved(meeting, &outcome);
                }
            }
            NodeEvent::Relayed(_) => self.relay_told(true),
            NodeEvent::NotRelayed => self.relay_told(false),
            NodeEvent::PathNews => {
                self.improving.look_again(self.now, &self.node);
                self.end_useless_attempts();
            }
        }
    }

    pub(super) fn forget_learning(&mut self, meeting: MeetingId) {
        self.learning.remove(&meeting);
    }

    pub(super) fn is_learning(&self, meeting: MeetingId) -> bool {
        self.learning.contains_key(&meeting)
    }

    fn next_timer(&self) -> Option<Instant> {
        let attachments = self.attachments.iter().filter_map(|one| {
            let dial = one.dial.map(|(_, until)| until);
            dial.into_iter().chain(one.attachment.poll_timeout()).min()
        });
        let learning = self.learning.values().map(|learning| learning.until);
        let board = self.hosting.as_ref().and_then(Hosting::poll_timeout);
        attachments
            .chain(learning)
            .chain(board)
            .chain(self.calls_due())
            .chain(self.rings_due())
            .chain(self.improving.poll_timeout())
            .chain(self.node.poll_timeout())
            .min()
    }

    fn handle_timers(&mut self) {
        for meeting in self.learning.keys().copied().collect::<Vec<_>>() {
            self.learned(meeting);
        }
        if let Some(hosting) = &mut self.hosting {
            hosting.handle_timeout(self.now);
        }
        self.ring_timers();
    }
}

impl Program for Service {
    fn collect(&mut self, now: Instant) {
        self.now = now;
        self.turn();
    }

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.now = now;
        self.node.handle_datagram(now, datagram);
        self.turn();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.node.handle_timeout(now);
        self.handle_timers();
        self.turn();
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.node.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next_timer()
    }

    fn is_to_end(&self) -> bool {
        false
    }

    fn has_ended(&self) -> bool {
        false
    }
}

/// What relays and servers may take to answer a meeting.
const PATIENCE: Duration = Duration::from_secs(3);
