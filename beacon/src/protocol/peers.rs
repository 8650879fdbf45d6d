//! Who is here: a bounded table of the peers heard on each link, and what is news about them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::announcer::{MAX_PERIOD, MIN_PERIOD};
use super::packet::{Tag, tag};
use super::{Link, LinkId, Packet};

/// The peers heard of late.
#[derive(Debug)]
pub(super) struct Peers {
    table: BTreeMap<PeerKey, Peer>,
    /// No peer expires before this; kept as a bound so that not every packet has to look at every peer.
    first_expiry: Option<Instant>,
}

/// Which beacon on which link: a peer that is reachable by two links is two entries, with two addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PeerKey {
    link: LinkId,
    identity: Identity,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    Id(Vec<u8>),
    /// Beacons without identity bytes are told apart by where they send from.
    Source(SocketAddr),
}

#[derive(Debug)]
struct Peer {
    link: Arc<Link>,
    source: SocketAddr,
    /// Its latest address of the other family.
    other_source: Option<SocketAddr>,
    payload: Vec<u8>,
    sequence: u32,
    heard: Instant,
    expires: Instant,
    /// Heard more than once. A flood of made-up peers pushes out only those that were not.
    confirmed: bool,
}

/// What a packet was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Word(Event),
    /// A copy of the latest word that came by the other address family, of which nothing was known.
    NewWay(Event),
    /// A copy of a word that was heard before.
    Copy,
}

/// Something learned about a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What is new.
    pub news: News,
    /// The link on which the peer was heard.
    pub link: Arc<Link>,
    /// Where the peer sends from: its address on that link, and a port of the beacon's own.
    pub source: SocketAddr,
    /// The same for the other address family, if it was heard by both.
    pub other_source: Option<SocketAddr>,
    /// What the peer announces, or last announced.
    pub payload: Vec<u8>,
}

/// What is new about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum News {
    /// The peer was not known on this link, or had been gone.
    Appeared,
    /// The peer announces other data than before.
    Changed,
    /// The peer is still there and announces the same.
    Repeated,
    /// The peer is gone. If it is heard again, it appears again.
    Left(Departure),
}

/// How a peer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Departure {
    /// It said goodbye.
    Goodbye,
    /// The link by which it was heard went down or lost its addresses.
    LinkDown,
    /// It missed several of its own announced intervals.
    Silent,
}

impl Peers {
    pub(super) const fn new() -> Self {
        Self { table: BTreeMap::new(), first_expiry: None }
    }

    /// Whether the sender of a packet is in the table.
    pub(super) fn knows(&self, link: LinkId, source: SocketAddr, packet: &Packet<'_>) -> bool {
        self.table.contains_key(&PeerKey::new(link, source, packet))
    }

    /// Notes what a peer said.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        link: &Arc<Link>,
        source: SocketAddr,
        packet: &Packet<'_>,
    ) -> Heard {
        let key = PeerKey::new(link.id, source, packet);
        let expires = now + packet.interval.clamp(MIN_PERIOD, MAX_PERIOD) * EXPIRY_INTERVALS + EXPIRY_GRACE;
        self.first_expiry = Some(self.first_expiry.map_or(expires, |first| first.min(expires)));
        let Some(peer) = self.table.get_mut(&key) else {
            self.make_room();
            let peer = Peer {
                link: Arc::clone(link),
                source,
                other_source: None,
                payload: packet.data.to_vec(),
                sequence: packet.sequence,
                heard: now,
                expires,
                confirmed: false,
            };
            let event = peer.event(News::Appeared);
            self.table.insert(key, peer);
            return Heard::Word(event);
        };
        if peer.sequence.wrapping_sub(packet.sequence) < REORDER_WINDOW {
            let is_copy = peer.sequence == packet.sequence && peer.payload == packet.data;
            if !is_copy || !peer.is_new_way(source) {
                return Heard::Copy;
            }
            peer.other_source = Some(source);
            return Heard::NewWay(peer.event(News::Repeated));
        }
        peer.link = Arc::clone(link);
        peer.sequence = packet.sequence;
        if peer.source.is_ipv4() != source.is_ipv4() {
            peer.other_source = Some(peer.source);
        }
        peer.source = source;
        peer.heard = now;
        peer.expires = expires;
        peer.confirmed = true;
        if peer.payload == packet.data {
            return Heard::Word(peer.event(News::Repeated));
        }
        peer.payload = packet.data.to_vec();
        Heard::Word(peer.event(News::Changed))
    }

    /// Takes a goodbye, if it comes from where the peer was last heard: only who can forge that address can lie.
    pub(super) fn goodbye(&mut self, link: LinkId, source: SocketAddr, packet: &Packet<'_>) -> Option<Event> {
        let key = PeerKey::new(link, source, packet);
        let known = self.table.get(&key)?;
        if ![Some(known.source), known.other_source].into_iter().flatten().any(|it| it.ip() == source.ip()) {
            return None;
        }
        let peer = self.table.remove(&key)?;
        Some(peer.event(News::Left(Departure::Goodbye)))
    }

    /// Removes all peers of a link.
    pub(super) fn link_down(&mut self, link: LinkId) -> Vec<Event> {
        let gone = self.table.extract_if(.., |key, _| key.link == link);
        gone.map(|(_, peer)| peer.event(News::Left(Departure::LinkDown))).collect()
    }

    /// Removes the peers that have been silent for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Event> {
        if self.first_expiry.is_none_or(|first| now < first) {
            return Vec::new();
        }
        let gone = self.table.extract_if(.., |_, peer| peer.expires <= now);
        let events = gone.map(|(_, peer)| peer.event(News::Left(Departure::Silent))).collect();
        self.first_expiry = self.table.values().map(|peer| peer.expires).min();
        events
    }

    /// Gives every peer until `earliest` to be heard again.
    pub(super) fn postpone_expiry(&mut self, earliest: Instant) {
        for peer in self.table.values_mut() {
            peer.expires = peer.expires.max(earliest);
        }
        self.first_expiry = self.table.values().map(|peer| peer.expires).min();
    }

    pub(super) const fn next_expiry(&self) -> Option<Instant> {
        self.first_expiry
    }

    /// How many peers share a link with us, for the load they make; those heard only once may be made up.
    pub(super) fn confirmed_on(&self, link: LinkId) -> usize {
        self.table.iter().filter(|(key, peer)| key.link == link && peer.confirmed).count()
    }

    /// The peers of a link that were heard since `since`.
    pub(super) fn known_on(&self, link: LinkId, since: Instant) -> Vec<Tag> {
        let heard = self.table.iter().filter(|(key, peer)| key.link == link && peer.heard >= since);
        heard.filter_map(|(key, _)| key.identity.tag()).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    fn make_room(&mut self) {
        if self.table.len() < MAX_PEERS {
            return;
        }
        let least = self.table.iter().min_by_key(|(_, peer)| (peer.confirmed, peer.heard));
        if let Some(key) = least.map(|(key, _)| key.clone()) {
            self.table.remove(&key);
        }
    }
}

impl PeerKey {
    fn new(link: LinkId, source: SocketAddr, packet: &Packet<'_>) -> Self {
        let identity =
            if packet.id.is_empty() { Identity::Source(source) } else { Identity::Id(packet.id.to_vec()) };
        Self { link, identity }
    }
}

impl Identity {
    fn tag(&self) -> Option<Tag> {
        match self {
            Self::Id(id) => tag(id),
            Self::Source(_) => None,
        }
    }
}

impl Peer {
    fn event(&self, news: News) -> Event {
        Event {
            news,
            link: Arc::clone(&self.link),
            source: self.source,
            other_source: self.other_source,
            payload: self.payload.clone(),
        }
    }

    /// Whether an address tells something about the family by which the latest word did not come.
    fn is_new_way(&self, source: SocketAddr) -> bool {
        self.source.is_ipv4() != source.is_ipv4() && self.other_source != Some(source)
    }
}

/// Peers remembered: with the largest payloads about 1.5 MB. Ten times what one link's load bound suits.
const MAX_PEERS: usize = 1024;

/// With a third of all datagrams lost and one way of sending only, a peer that is there misses four in a row about
/// once in a hundred intervals; with the usual two or three ways, never.
const EXPIRY_INTERVALS: u32 = 4;

/// Slack for a sender's own scheduling, which matters with short periods.
const EXPIRY_GRACE: Duration = Duration::from_millis(200);

/// Numbers this far behind are copies or came late. Numbers further behind are taken as new, so that a forged high
/// number does not silence the real peer.
const REORDER_WINDOW: u32 = 64;

#[cfg(test)]
mod tests {
    use super::super::{Kind, any_instant};
    use super::*;

    const LINK: LinkId = LinkId(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_appears_repeats_changes_and_leaves() {
        let now = any_instant();
        let mut peers = Peers::new();

        assert_eq!(news(&mut peers, now, &link(1), source(1), &packet(b"a", 1, b"x")), Some(News::Appeared));
        assert_eq!(news(&mut peers, now, &link(1), source(1), &packet(b"a", 1, b"x")), None);
        assert_eq!(news(&mut peers, now, &link(1), source(1), &packet(b"a", 2, b"x")), Some(News::Repeated));
        assert_eq!(news(&mut peers, now, &link(1), source(1), &packet(b"a", 3, b"y")), Some(News::Changed));
        assert_eq!(news(&mut peers, now, &link(1), source(1), &packet(b"a", 2, b"x")), None);
        let left = peers.goodbye(LINK, source(1), &packet(b"a", 4, b"")).expect("it was there");
        assert_eq!((left.news, left.payload), (News::Left(Departure::Goodbye), b"y".to_vec()));
    }

    #[test]
    fn a_goodbye_from_elsewhere_is_not_believed() {
        let now = any_instant();
        let mut peers = Peers::new();
        peers.heard(now, &link(1), source(1), &packet(b"a", 1, b"x"));

        let liar = SocketAddr::from(([10, 0, 0, 66], 1));
        assert_eq!(peers.goodbye(LINK, liar, &packet(b"a", 2, b"")), None);
    }

    #[test]
    fn a_forged_high_number_does_not_silence_the_real_peer() {
        let now = any_instant();
        let mut peers = Peers::new();
        peers.heard(now, &link(1), source(1), &packet(b"a", 1, b"x"));
        peers.heard(now, &link(1), source(66), &packet(b"a", u32::MAX / 2, b"forged"));

        assert_eq!(news(&mut peers, now, &link(1), source(1), &packet(b"a", 2, b"x")), Some(News::Changed));
    }

    #[test]
    fn a_silent_peer_expires_after_four_intervals_and_comes_back_when_heard() {
        let now = any_instant();
        let mut peers = Peers::new();
        peers.heard(now, &link(1), source(1), &packet(b"a", 1, b"x"));

        assert!(peers.expire(now + SECOND * 4).is_empty());
        let expiry = peers.next_expiry().expect("one peer is there");
        assert_eq!(peers.expire(expiry).len(), 1);
        assert_eq!(peers.next_expiry(), None);
        assert_eq!(
            news(&mut peers, expiry, &link(1), source(1), &packet(b"a", 9, b"x")),
            Some(News::Appeared)
        );
    }

    #[test]
    fn a_link_that_goes_down_takes_its_own_peers_only() {
        let now = any_instant();
        let mut peers = Peers::new();
        peers.heard(now, &link(1), source(1), &packet(b"a", 1, b"x"));
        peers.heard(now, &link(2), source(1), &packet(b"a", 1, b"x"));

        let gone = peers.link_down(LINK);

        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].news, News::Left(Departure::LinkDown));
        assert_eq!(peers.len(), 1);
    }

    #[test]
    fn made_up_peers_without_end_take_bounded_room_and_do_not_push_out_real_ones() {
        let now = any_instant();
        let mut peers = Peers::new();
        peers.heard(now, &link(1), source(1), &packet(b"real", 1, b"x"));
        peers.heard(now, &link(1), source(1), &packet(b"real", 2, b"x"));

        for number in 0..5_000_u32 {
            peers.heard(now + SECOND, &link(1), source(2), &packet(&number.to_be_bytes(), 1, b"forged"));
        }

        assert_eq!(peers.len(), MAX_PEERS);
        assert_eq!(peers.confirmed_on(LINK), 1);
        assert_eq!(
            news(&mut peers, now + SECOND, &link(1), source(1), &packet(b"real", 3, b"x")),
            Some(News::Repeated)
        );
    }

    #[test]
    fn beacons_without_identity_are_told_apart_by_their_source() {
        let now = any_instant();
        let mut peers = Peers::new();

        assert_eq!(news(&mut peers, now, &link(1), source(1), &packet(b"", 1, b"x")), Some(News::Appeared));
        assert_eq!(news(&mut peers, now, &link(1), source(2), &packet(b"", 1, b"x")), Some(News::Appeared));
    }

    #[test]
    fn a_peer_that_is_heard_by_both_families_has_both_addresses_and_may_leave_by_either() {
        let now = any_instant();
        let mut peers = Peers::new();
        let by_v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 6));
        peers.heard(now, &link(1), source(1), &packet(b"a", 1, b"x"));

        let Heard::NewWay(again) = peers.heard(now, &link(1), by_v6, &packet(b"a", 1, b"x")) else {
            panic!("it is a new way");
        };
        assert_eq!((again.news, again.source, again.other_source), (News::Repeated, source(1), Some(by_v6)));
        assert_eq!(news(&mut peers, now, &link(1), by_v6, &packet(b"a", 1, b"x")), None);
        let Heard::Word(next) = peers.heard(now, &link(1), by_v6, &packet(b"a", 2, b"x")) else {
            panic!("it is a new word");
        };
        assert_eq!((next.source, next.other_source), (by_v6, Some(source(1))));
        assert_eq!(news(&mut peers, now, &link(1), source(1), &packet(b"a", 2, b"x")), None);
        assert!(peers.goodbye(LINK, source(1), &packet(b"a", 3, b"")).is_some());
    }

    fn news(
        peers: &mut Peers,
        now: Instant,
        link: &Arc<Link>,
        source: SocketAddr,
        packet: &Packet<'_>,
    ) -> Option<News> {
        match peers.heard(now, link, source, packet) {
            Heard::Word(event) | Heard::NewWay(event) => Some(event.news),
            Heard::Copy => None,
        }
    }

    fn packet<'a>(id: &'a [u8], sequence: u32, data: &'a [u8]) -> Packet<'a> {
        Packet { kind: Kind::Announce, sequence, interval: SECOND, id, data, known: &[] }
    }

    fn link(id: u32) -> Arc<Link> {
        Arc::new(Link { id: LinkId(id), name: "net0".into(), networks: vec![], datagrams_per_round: 1 })
    }

    fn source(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }
}
