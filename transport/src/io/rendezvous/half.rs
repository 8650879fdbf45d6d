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
    protocol::{
        offer::{Hole, Offer},
        telling::{Secrets, Telling},
    },
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
    telling: Telling,
    /// Of the sockets for UDP.
    locals: Vec<(Hole, SocketAddr)>,
    /// Taken by the call.
    open: Vec<OpenHole>,
    changed: bool,
    theirs: Option<Offer>,
    vouched: Vec<IpAddr>,
    relays: Vec<Hold>,
    slot: Option<Arc<Slot>>,
    failures: Vec<MapFailure>,
    /// Servers are asked by UDP.
    asks_by_udp: bool,
    /// Whether one has answered, once all have had their time.
    udp_answered: Option<bool>,
    /// Ports that a router forwards until the meeting is over.
    leases: Vec<PortLease>,
}

impl Half {
    pub(super) fn new(
        shared: &Arc<Shared>,
        open: Vec<OpenHole>,
        listeners: Vec<(Scheme, SocketAddr)>,
        options: &RendezvousOptions,
    ) -> Arc<Self> {
        let asks_by_udp = open.iter().any(|open| open.hole.is_udp() && open.is_direct);
        let relay_at_once = options.relay_at_once;
        let mut telling = Telling::new(shared.public_key, listeners, options.second, relay_at_once);
        let mut locals = Vec::new();
        for one in &open {
            telling.add_hole(one.hole, one.hosts.clone(), one.seen.clone());
            if let PunchSocket::Udp(hold) = &one.socket {
                locals.push((one.hole, hold.socket().local()));
            }
        }
        let state = State {
            telling,
            locals,
            open,
            changed: true,
            theirs: None,
            vouched: Vec::new(),
            relays: Vec::new(),
            slot: None,
            failures: Vec::new(),
            asks_by_udp,
            udp_answered: None,
            leases: Vec::new(),
        };
        Arc::new(Self { shared: shared.clone(), ways: options.ways, relay_at_once, state: Mutex::new(state) })
    }

    /// What the peer is to be told now.
    pub(crate) fn offer(&self) -> Offer {
        self.state.hold().telling.offer(&mut draw)
    }

    /// Begins the call; `slot` is woken by news from now on. `None` if one has begun before.
    pub(super) fn begin(&self, slot: &Arc<Slot>) -> Option<Begun> {
        let mut state = self.state.hold();
        let state = &mut *state;
        drop(state.telling.offer(&mut draw));
        let Secrets { meeting, holes: mut secrets } = state.telling.take_secrets()?;
        state.slot = Some(slot.clone());
        let open = std::mem::take(&mut state.open);
        let with_info = open.into_iter().filter_map(|open| {
            let at = secrets.iter().position(|(hole, _)| *hole == open.hole)?;
            Some((open, secrets.swap_remove(at).1))
        });
        let holes = with_info.collect();
        let (is_dialable, second) = (state.telling.is_dialable(), state.telling.second());
        Some(Begun { meeting, holes, is_dialable, second })
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
            state.changed |= state.telling.mapped(hole, seen);
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
        match state.udp_answered {
            Some(answered) => !answered,
            // They are asked side by side, and over TCP it takes two round trips.
            None => {
                let is_seen = |by_udp: bool| state.telling.is_seen(|hole| hole.is_udp() == by_udp);
                state.asks_by_udp && !is_seen(true) && is_seen(false)
            }
        }
    }

    /// As servers have seen the sockets for UDP so far.
    pub(crate) fn seen(&self) -> Vec<(SocketAddr, Vec<MappedSocketAddr>)> {
        let state = self.state.hold();
        let seen = state.locals.iter().map(|(hole, local)| (*local, state.telling.seen(*hole).to_vec()));
        seen.filter(|(_, seen)| !seen.is_empty()).collect()
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
            if state.telling.relayed(endpoint) {
                state.relays.push(Hold::new(&self.shared, socket.clone()));
                (state.changed, added) = (true, true);
            }
        });
        added
    }

    /// Nothing is learned any more.
    pub(crate) fn complete(&self) {
        self.change(|state| state.changed |= state.telling.complete());
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
        let (ours, more) = (state.telling.endpoints(), state.telling.more());
        let (theirs, relays) = (state.theirs.take(), std::mem::take(&mut state.relays));
        Some(News { ours, theirs, relays, vouched: state.vouched.clone(), more })
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

/// A key for this meeting alone, whatever addresses go with it.
fn draw() -> (PrivRendezvousInfo, PubRendezvousInfo) {
    gen_rendezvous_info(Vec::new())
}

impl fmt::Debug for Half {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Half").finish_non_exhaustive()
    }
}

/// As many as a punch takes in.
const MAX_VOUCHED: usize = 8;
