//! Our half of a meeting: what we have told the peer and may yet tell it. The call that meets shares it with those who learn addresses
//! beside it, and with whoever carries what the peer learns.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use nat_traversal::{
    MapFailure, MappedSocketAddr, PortLease, PrivRendezvousInfo, PubRendezvousInfo, gen_rendezvous_info,
};

use super::Hold;
use crate::{
    PathKind, Scheme,
    io::{lock::Lock as _, slot::Slot, udp::UdpSocket},
    path::PathKinds,
    protocol::offer::{Hole, Offer},
    rendezvous::RendezvousOptions,
    transport::Shared,
};

pub(crate) struct Half {
    pub(super) shared: Arc<Shared>,
    /// What may be tried.
    pub(super) ways: PathKinds,
    /// A relay is known to be needed.
    pub(super) relay_at_once: bool,
    state: Mutex<State>,
}

/// One socket to punch from, and what is known of its addresses.
pub(super) struct OpenHole {
    pub(super) hole: Hole,
    pub(super) socket: PunchSocket,
    /// It is not only for relays.
    pub(super) is_direct: bool,
    pub(super) hosts: Vec<MappedSocketAddr>,
    /// As servers see it.
    pub(super) seen: Vec<MappedSocketAddr>,
}

/// A socket to punch from.
pub(super) enum PunchSocket {
    Udp(Hold),
    Tcp(socket2::Socket),
}

/// What a call has not taken in yet.
#[derive(Default)]
pub(super) struct News {
    /// Our addresses, all of each hole.
    pub(super) ours: Vec<(Hole, Vec<MappedSocketAddr>)>,
    pub(super) theirs: Option<Offer>,
    pub(super) relays: Vec<Hold>,
    /// Where somebody else says that the peer is; all of them each time.
    pub(super) vouched: Vec<IpAddr>,
    /// We may learn more.
    pub(super) more: bool,
}

/// What a call begins with.
pub(super) struct Begun {
    pub(super) meeting: PrivRendezvousInfo,
    pub(super) holes: Vec<(OpenHole, PrivRendezvousInfo)>,
    /// The peer was told where we listen.
    pub(super) is_dialable: bool,
    pub(super) second: bool,
}

struct State {
    public: Option<PubRendezvousInfo>,
    meeting: Option<PrivRendezvousInfo>,
    /// Taken by the call.
    open: Vec<OpenHole>,
    told: Vec<Told>,
    listeners: Vec<(Scheme, SocketAddr)>,
    second: bool,
    more: bool,
    changed: bool,
    theirs: Option<Offer>,
    vouched: Vec<IpAddr>,
    relays: Vec<Hold>,
    relay_count: usize,
    slot: Option<Arc<Slot>>,
    failures: Vec<MapFailure>,
    /// Servers are asked by UDP.
    asks_by_udp: bool,
    /// Whether one has answered, once all have had their time.
    udp_answered: Option<bool>,
    /// Ports that a router forwards until the meeting is over.
    leases: Vec<PortLease>,
}

/// What the peer is told of one hole.
struct Told {
    hole: Hole,
    /// Of a socket for UDP.
    local: Option<SocketAddr>,
    hosts: Vec<MappedSocketAddr>,
    seen: Vec<MappedSocketAddr>,
    relayed: Vec<MappedSocketAddr>,
    /// Made with the first offer.
    public: Option<PubRendezvousInfo>,
    private: Option<PrivRendezvousInfo>,
}

impl Half {
    pub(super) fn new(
        shared: &Arc<Shared>,
        open: Vec<OpenHole>,
        listeners: Vec<(Scheme, SocketAddr)>,
        options: &RendezvousOptions,
    ) -> Arc<Self> {
        let asks_by_udp = open.iter().any(|open| open.hole.is_udp() && open.is_direct);
        let told = open.iter().map(|open| Told {
            hole: open.hole,
            local: match &open.socket {
                PunchSocket::Udp(hold) => Some(hold.socket().local()),
                PunchSocket::Tcp(_) => None,
            },
            hosts: open.hosts.clone(),
            seen: open.seen.clone(),
            relayed: Vec::new(),
            public: None,
            private: None,
        });
        let state = State {
            public: None,
            meeting: None,
            told: told.collect(),
            open,
            listeners,
            second: options.second,
            more: true,
            changed: true,
            theirs: None,
            vouched: Vec::new(),
            relays: Vec::new(),
            relay_count: 0,
            slot: None,
            failures: Vec::new(),
            asks_by_udp,
            udp_answered: None,
            leases: Vec::new(),
        };
        let relay_at_once = options.relay_at_once;
        Arc::new(Self { shared: shared.clone(), ways: options.ways, relay_at_once, state: Mutex::new(state) })
    }

    /// What the peer is to be told now.
    pub(crate) fn offer(&self) -> Offer {
        self.state.hold().offer(self)
    }

    /// Begins the call; `slot` is woken by news from now on. `None` if one has begun before.
    pub(super) fn begin(&self, slot: &Arc<Slot>) -> Option<Begun> {
        let mut state = self.state.hold();
        state.offer(self);
        let meeting = state.meeting.take()?;
        state.slot = Some(slot.clone());
        let open = std::mem::take(&mut state.open);
        let with_info = open.into_iter().filter_map(|open| {
            let told = state.told.iter_mut().find(|told| told.hole == open.hole)?;
            Some((open, told.private.take()?))
        });
        let holes = with_info.collect();
        Some(Begun { meeting, holes, is_dialable: !state.listeners.is_empty(), second: state.second })
    }

    /// The sockets whose addresses are to be asked for: those of UDP, and copies of those of TCP.
    pub(super) fn sockets(&self) -> Vec<(Hole, PunchSocket)> {
        let state = self.state.hold();
        let direct = state.open.iter().filter(|open| open.is_direct);
        let copies = direct.filter_map(|open| match &open.socket {
            PunchSocket::Udp(hold) => {
                Some((open.hole, PunchSocket::Udp(Hold::new(&self.shared, hold.socket().clone()))))
            }
            PunchSocket::Tcp(socket) => Some((open.hole, PunchSocket::Tcp(socket.try_clone().ok()?))),
        });
        copies.collect()
    }

    /// How a hole's socket is seen from outside.
    pub(crate) fn mapped(&self, hole: Hole, seen: Vec<MappedSocketAddr>, lease: Option<PortLease>) {
        self.change(|state| {
            state.leases.extend(lease);
            if let Some(told) = state.told.iter_mut().find(|told| told.hole == hole) {
                state.changed |= told.seen != seen;
                told.seen = seen;
            }
        });
    }

    pub(super) fn not_mapped(&self, failures: Vec<MapFailure>) {
        self.state.hold().failures.extend(failures);
    }

    /// All servers that were asked by UDP have had their time.
    pub(super) fn udp_asked(&self, answered: bool) {
        let mut state = self.state.hold();
        state.udp_answered = Some(answered || state.udp_answered == Some(true));
    }

    pub(crate) fn udp_is_silent(&self) -> bool {
        let state = self.state.hold();
        let is_seen =
            |of: fn(Hole) -> bool| state.told.iter().any(|told| of(told.hole) && !told.seen.is_empty());
        match state.udp_answered {
            Some(answered) => !answered,
            // They are asked side by side, and over TCP it takes two round trips.
            None => state.asks_by_udp && !is_seen(Hole::is_udp) && is_seen(|hole| !hole.is_udp()),
        }
    }

    /// As servers have seen the sockets for UDP so far.
    pub(crate) fn seen(&self) -> Vec<(SocketAddr, Vec<MappedSocketAddr>)> {
        let state = self.state.hold();
        let known = state.told.iter().filter(|told| !told.seen.is_empty());
        known.filter_map(|told| Some((told.local?, told.seen.clone()))).collect()
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The peer may be met over that relay as well. Tells whether there was room for it.
    pub(crate) fn add_relay(&self, socket: &Arc<UdpSocket>, endpoint: MappedSocketAddr) -> bool {
        let mut added = false;
        if !self.ways.contains(PathKind::Relayed) {
            return added;
        }
        self.change(|state| {
            let Some(told) = state.told.iter_mut().find(|told| told.hole == Hole::UdpV4) else { return };
            if state.relay_count < MAX_RELAYS {
                state.relay_count += 1;
                told.relayed.push(endpoint);
                state.relays.push(Hold::new(&self.shared, socket.clone()));
                (state.changed, added) = (true, true);
            }
        });
        added
    }

    /// Nothing is learned any more.
    pub(crate) fn complete(&self) {
        self.change(|state| state.changed |= std::mem::replace(&mut state.more, false));
    }

    /// The peer has said more.
    pub(crate) fn receive(&self, theirs: Offer) {
        self.change(|state| {
            state.theirs = Some(theirs);
            state.changed = true;
        });
    }

    /// Somebody besides the peer says that it is there.
    pub(crate) fn vouch(&self, ip: IpAddr) {
        self.change(|state| {
            if state.vouched.len() < MAX_VOUCHED && !state.vouched.contains(&ip) {
                tracing::debug!(%ip, "the peer's address is vouched for");
                state.vouched.push(ip);
                state.changed = true;
            }
        });
    }

    /// What has changed since it was asked for.
    pub(super) fn news(&self) -> Option<News> {
        let mut state = self.state.hold();
        if !std::mem::replace(&mut state.changed, false) {
            return None;
        }
        let ours = state.told.iter().map(|told| (told.hole, told.endpoints())).collect();
        let (theirs, relays) = (state.theirs.take(), std::mem::take(&mut state.relays));
        Some(News { ours, theirs, relays, vouched: state.vouched.clone(), more: state.more })
    }

    pub(crate) fn failures(&self) -> Vec<MapFailure> {
        self.state.hold().failures.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.hold();
        change(&mut state);
        let slot = state.slot.clone().filter(|_| state.changed);
        drop(state);
        if let Some(slot) = slot {
            slot.wake();
        }
    }
}

impl State {
    fn offer(&mut self, half: &Half) -> Offer {
        let public = self.public.get_or_insert_with(|| {
            let (private, public) = gen_rendezvous_info(Vec::new());
            self.meeting = Some(private);
            public
        });
        let mut holes = [const { None }; Hole::ALL.len()];
        for told in &mut self.told {
            let endpoints = told.endpoints();
            let public = match &told.public {
                Some(public) => public.with_endpoints(endpoints),
                // Nobody can be told to punch towards nothing.
                None if endpoints.is_empty() && !self.more => continue,
                None => {
                    // Without addresses, as the keys are made of it: the peer's first offer need not be the first that was made here.
                    let (private, public) = gen_rendezvous_info(Vec::new());
                    told.private = Some(private);
                    told.public.insert(public).with_endpoints(endpoints)
                }
            };
            holes[told.hole as usize] = Some(public);
        }
        Offer {
            public_key: half.shared.public_key,
            meeting: public.clone(),
            holes,
            listeners: self.listeners.clone(),
            more: self.more,
            second: self.second,
            relay_at_once: half.relay_at_once,
        }
    }
}

impl Told {
    fn endpoints(&self) -> Vec<MappedSocketAddr> {
        let mut endpoints = self.hosts.clone();
        for seen in &self.seen {
            // An address of this host that servers see as well has no NAT before it.
            if endpoints.iter().all(|known| known.addr != seen.addr) {
                endpoints.push(*seen);
            }
        }
        // A peer tries no more than sixteen, and relays come last.
        endpoints.truncate(MAX_ENDPOINTS - self.relayed.len());
        endpoints.extend(&self.relayed);
        endpoints
    }
}

impl fmt::Debug for Half {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Half").finish_non_exhaustive()
    }
}

/// As many as a rendezvous information has.
const MAX_ENDPOINTS: usize = 16;
/// As many as a punch takes in.
const MAX_VOUCHED: usize = 8;
/// Each costs a check a peer's address.
const MAX_RELAYS: usize = 2;
