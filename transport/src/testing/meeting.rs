//! Meetings of a node: what is told, punched and dialled.

mod turning;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use nat_traversal::{
    AddrKind, MappedSocketAddr, PortRule, PrivRendezvousInfo, PubRendezvousInfo, PunchOptions,
    gen_rendezvous_info,
    protocol::{Machine as _, Mapper, Random, Seed, SocketIndex, UdpPuncher},
};

use super::{
    call::Call,
    node::{Node, StreamId},
};
use crate::{
    PathKind, ProtocolLabel, PublicKey, RendezvousOffer, Scheme,
    path::PathKinds,
    protocol::{
        meetings,
        offer::{Hole, Offer},
        preface::RendezvousTag,
        punching::begin_punch,
        search::{Search, Standing},
        telling::{Secrets, Telling},
    },
};

/// A meeting of a [`Node`](super::Node).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MeetingId(u64);

/// How a node meets a peer.
#[derive(Debug, Clone, Default)]
pub struct MeetingOptions {
    /// Whether it gets the other's offer last, as whoever is called does.
    pub second: bool,
    /// Whether it tells where it listens, beside the socket that it punches from; a node of one socket has nothing to tell.
    pub listeners: Vec<SocketAddr>,
    /// How the socket is seen from outside, as far as that is known from before.
    pub known: Vec<Seen>,
    /// Direct paths only.
    pub without_relay: bool,
}

/// An address as a server has seen it.
pub type Seen = MappedSocketAddr;

/// One meeting.
pub(super) struct Meeting {
    telling: Telling,
    mapper: Option<Mapper>,
    told: Vec<MappedSocketAddr>,
    theirs: Option<Offer>,
    vouched: Vec<IpAddr>,
    ways: PathKinds,
    changed: bool,
    running: Option<Running>,
}

/// The call, once both have told where they are.
struct Running {
    aim: Aim,
    begun: Instant,
    peer: PublicKey,
    tag: RendezvousTag,
    label: ProtocolLabel,
    deadline: Instant,
    puncher: Option<UdpPuncher>,
    /// The socket of ours at a relay that the punch uses as well.
    relay: Option<SocketIndex>,
    /// QUIC may begin before the peer is heard.
    blindly: bool,
    /// What the punch calls its further sockets, and which of the node's they are.
    sockets: BTreeMap<SocketIndex, u16>,
    dials: BTreeMap<usize, u64>,
}

/// What it is for.
enum Aim {
    Stream(Call),
    /// Another path of that connection.
    Path {
        link: usize,
        search: Search,
    },
}

impl Meeting {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let mapper = self.mapper.as_ref().and_then(|mapper| mapper.poll_timeout());
        let running = self.running.as_ref().and_then(|running| {
            let puncher = running.puncher.as_ref().and_then(|puncher| puncher.poll_timeout());
            let call = running.call().and_then(Call::poll_timeout);
            puncher.into_iter().chain(call).chain([running.deadline]).min()
        });
        mapper.into_iter().chain(running).min()
    }
}

impl Running {
    /// The call, if it is for a stream.
    fn call(&self) -> Option<&Call> {
        match &self.aim {
            Aim::Stream(call) => Some(call),
            Aim::Path { .. } => None,
        }
    }

    fn call_mut(&mut self) -> Option<&mut Call> {
        match &mut self.aim {
            Aim::Stream(call) => Some(call),
            Aim::Path { .. } => None,
        }
    }

    /// The punch's own name of one of the node's sockets.
    fn index_of(&self, socket: SocketIndex) -> Option<SocketIndex> {
        match socket {
            SocketIndex::MAIN => Some(SocketIndex::MAIN),
            other if self.relay == Some(other) => Some(RELAY),
            other => self.sockets.iter().find(|(_, known)| **known == other.0).map(|(index, _)| *index),
        }
    }
}

impl Node {
    /// Opens what a meeting needs, and begins to ask how it is seen from outside.
    pub fn open_meeting(&mut self, now: Instant, options: &MeetingOptions) -> MeetingId {
        self.now = now;
        let id = MeetingId(self.number());
        let listeners = options.listeners.iter().map(|addr| (Scheme::Quic, *addr)).collect();
        let mut telling = Telling::new(self.public_key(), listeners, options.second, false);
        let hosts = vec![MappedSocketAddr::host(self.config.local)];
        telling.add_hole(Hole::UdpV4, hosts, options.known.clone());
        let relay = self.relayed_address().filter(|_| !options.without_relay);
        if let Some(addr) = relay {
            telling.relayed(relayed(addr));
        }
        let seed = Seed::from_bytes(self.random.bytes());
        let mapper = Mapper::new(now, &self.config.servers, seed, now + MAP_TIMEOUT);
        let ways = if options.without_relay { direct() } else { PathKinds::ALL };
        self.meetings.insert(
            id,
            Meeting {
                telling,
                mapper: Some(mapper),
                told: Vec::new(),
                theirs: None,
                vouched: Vec::new(),
                ways,
                changed: true,
                running: None,
            },
        );
        self.settle();
        id
    }

    /// What the peer is to be told now.
    ///
    /// # Panics
    ///
    /// If there is no such meeting.
    pub fn offer(&mut self, meeting: MeetingId) -> RendezvousOffer {
        let rank = self.config.rank;
        let Self { meetings, random, .. } = self;
        let meeting = meetings.get_mut(&meeting).expect("a meeting that was opened");
        RendezvousOffer { offer: meeting.telling.offer(&mut || draw(random, rank)) }
    }

    /// How the socket has been seen from outside for a meeting.
    #[must_use]
    pub fn seen(&self, meeting: MeetingId) -> Vec<Seen> {
        self.meetings.get(&meeting).map(|meeting| meeting.told.clone()).unwrap_or_default()
    }

    /// The peer may be met at our relay as well.
    pub fn add_relay(&mut self, now: Instant, meeting: MeetingId) {
        self.now = now;
        let Some(addr) = self.relayed_address() else { return };
        if let Some(meeting) = self.meetings.get_mut(&meeting)
            && meeting.ways.contains(PathKind::Relayed)
            && meeting.telling.relayed(relayed(addr))
        {
            meeting.changed = true;
        }
        self.settle();
    }

    /// Nothing is learned any more.
    pub fn complete(&mut self, now: Instant, meeting: MeetingId) {
        self.now = now;
        if let Some(meeting) = self.meetings.get_mut(&meeting) {
            meeting.changed |= meeting.telling.complete();
        }
        self.settle();
    }

    /// Takes in what the peer says later.
    pub fn receive_offer(&mut self, now: Instant, meeting: MeetingId, theirs: &RendezvousOffer) {
        self.now = now;
        if let Some(meeting) = self.meetings.get_mut(&meeting) {
            meeting.theirs = Some(theirs.offer.clone());
            meeting.changed = true;
        }
        self.settle();
    }

    /// Somebody besides the peer says that it is there.
    pub fn vouch(&mut self, now: Instant, meeting: MeetingId, ip: IpAddr) {
        self.now = now;
        if let Some(meeting) = self.meetings.get_mut(&meeting) {
            meeting.vouched.push(ip);
            meeting.changed = true;
        }
        self.settle();
    }

    /// Meets the peer for a stream.
    ///
    /// # Errors
    ///
    /// If the offer is our own, or the meeting was begun before.
    pub fn meet(
        &mut self,
        now: Instant,
        meeting: MeetingId,
        theirs: &RendezvousOffer,
        label: &ProtocolLabel,
        deadline: Instant,
    ) -> Result<(), String> {
        self.begin_meeting(now, meeting, &theirs.offer, label, deadline, None)
    }

    /// Gives the connection of a stream a better path.
    ///
    /// # Errors
    ///
    /// As [`meet`](Node::meet), and if there is no such stream.
    pub fn improve(
        &mut self,
        now: Instant,
        meeting: MeetingId,
        theirs: &RendezvousOffer,
        stream: StreamId,
        deadline: Instant,
    ) -> Result<(), String> {
        self.begin_search(now, meeting, theirs, stream, deadline, Search::improving)
    }

    /// The same where the peer is cut off: the connection takes what there is.
    ///
    /// # Errors
    ///
    /// As [`improve`](Node::improve).
    pub fn rescue(
        &mut self,
        now: Instant,
        meeting: MeetingId,
        theirs: &RendezvousOffer,
        stream: StreamId,
        deadline: Instant,
    ) -> Result<(), String> {
        self.begin_search(now, meeting, theirs, stream, deadline, Search::rescuing)
    }

    fn begin_search(
        &mut self,
        now: Instant,
        id: MeetingId,
        theirs: &RendezvousOffer,
        stream: StreamId,
        deadline: Instant,
        search: impl FnOnce(PathKinds, Offer, Standing) -> Search,
    ) -> Result<(), String> {
        let held = self.streams.get(&stream).ok_or("no such stream")?;
        let before = self.standing(held.link).ok_or("the connection is over")?;
        if theirs.offer.public_key != held.peer {
            return Err("the offer is another's".to_owned());
        }
        let (link, label) = (held.link, held.label.clone());
        let ways = self.meetings.get(&id).ok_or("no such meeting")?.ways;
        let search = search(ways, theirs.offer.clone(), before);
        self.begin_meeting(now, id, &theirs.offer, &label, deadline, Some((link, search)))
    }

    fn begin_meeting(
        &mut self,
        now: Instant,
        id: MeetingId,
        theirs: &Offer,
        label: &ProtocolLabel,
        deadline: Instant,
        path: Option<(usize, Search)>,
    ) -> Result<(), String> {
        self.now = now;
        let (key, seed) = (self.public_key(), Seed::from_bytes(self.random.bytes()));
        let rank = self.config.rank;
        let Self { meetings, random, .. } = self;
        let meeting = meetings.get_mut(&id).ok_or("no such meeting")?;
        drop(meeting.telling.offer(&mut || draw(random, rank)));
        let Secrets { meeting: secret, holes } =
            meeting.telling.take_secrets().ok_or("it was begun before")?;
        let keys = secret.agree(&theirs.meeting).map_err(|error| error.to_string())?;
        if theirs.public_key == key {
            return Err("the offer is our own".to_owned());
        }
        let second = meeting.telling.second();
        let leads = if second == theirs.second { keys.leads() } else { second };
        let mut tag = RendezvousTag([0; 16]);
        tag.0.copy_from_slice(&keys.export(b"rendezvous tag")[..16]);
        let for_stream = path.is_none();
        let aim = match path {
            Some((link, search)) => Aim::Path { link, search },
            None => {
                let call = Call::offered(now, leads, theirs.clone(), meeting.ways, false);
                Aim::Stream(call.dialable(meeting.telling.is_dialable()))
            }
        };
        let how = (true, second && !theirs.second);
        let told = theirs.holes[Hole::UdpV4 as usize].as_ref();
        let info = holes.into_iter().find(|(hole, _)| *hole == Hole::UdpV4).map(|(_, info)| info);
        let puncher = info.zip(told).map(|(info, told)| {
            let puncher = begin_punch(now, info, told, how, &PunchOptions::new(), seed)?;
            Ok(if leads && for_stream { puncher.tell_heard() } else { puncher })
        });
        let puncher = puncher.transpose().map_err(|error: nat_traversal::PunchError| error.to_string())?;
        if for_stream {
            let (peer, label) = (theirs.public_key, label.clone());
            let known = meetings::Meeting { peer, label, leads, deadline, place: id };
            if !self.known.begin(tag, known) {
                return Err("too many rendezvous at once".to_owned());
            }
        }
        meeting.changed = true;
        meeting.running = Some(Running {
            aim,
            begun: now,
            peer: theirs.public_key,
            tag,
            label: label.clone(),
            deadline,
            puncher,
            relay: None,
            blindly: leads && how.1 && for_stream,
            sockets: BTreeMap::new(),
            dials: BTreeMap::new(),
        });
        self.settle();
        Ok(())
    }

    /// Gives a meeting up.
    pub fn end_meeting(&mut self, now: Instant, meeting: MeetingId) {
        self.now = now;
        drop(self.take_meeting(meeting));
        self.settle();
    }

    /// The meeting is over: what it has under way ends.
    pub(super) fn take_meeting(&mut self, id: MeetingId) -> Option<Meeting> {
        let meeting = self.meetings.remove(&id)?;
        if let Some(running) = &meeting.running {
            self.known.end(running.tag);
            for ticket in running.dials.values() {
                self.cancel_dial(*ticket);
            }
        }
        Some(meeting)
    }
}

fn relayed(addr: SocketAddr) -> MappedSocketAddr {
    MappedSocketAddr { addr, kind: AddrKind::Relayed, nat_restricted: true, ports: PortRule::Stable }
}

/// A path over a relay is what the connection has.
fn direct() -> PathKinds {
    [PathKind::Lan, PathKind::Direct, PathKind::Punched].into_iter().collect()
}

/// Draws a key whose place in the order of keys, which decides who leads, follows from the seed; the key itself cannot.
fn draw(random: &mut Random, rank: u8) -> (PrivRendezvousInfo, PubRendezvousInfo) {
    let wanted = random.bytes::<1>()[0] & 0xe0 | (rank & 3) << 3;
    loop {
        let (private, public) = gen_rendezvous_info(Vec::new());
        if public.to_bytes()[1] & 0xf8 == wanted {
            return (private, public);
        }
    }
}

/// Far beyond the numbers that a punch gives to sockets of its own.
const RELAY: SocketIndex = SocketIndex(0xff00);
/// As long as the map of a service's meetings.
const MAP_TIMEOUT: Duration = Duration::from_secs(3);
