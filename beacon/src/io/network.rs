//! The sockets of all links: opened and closed as interfaces come and go, read, and spoken by.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use mio::{Interest, Registry, Token};

use crate::config::BeaconConfig;
use crate::error::BeaconError;
use crate::io::interfaces::{self, Candidate};
use crate::io::socket::{Claim, FAMILIES, Listener, Speaker, Voice};
use crate::protocol::{Destination, Link, LinkId, Transmit};
use crate::stats::Stats;
use crate::warning::Warning;

/// All sockets of one beacon.
#[derive(Debug)]
pub(crate) struct Network {
    config: BeaconConfig,
    registry: Registry,
    listeners: BTreeMap<Token, Listener>,
    speakers: BTreeMap<Token, Speaker>,
    memberships: BTreeSet<(LinkId, IpAddr)>,
    /// Sockets that may have datagrams to read.
    ready: BTreeSet<Token>,
    next_token: Token,
    names: BTreeMap<LinkId, String>,
    /// What went wrong with interfaces when they were last looked at, and with destinations when last sent to.
    refused: Vec<Warning>,
    unreachable: BTreeMap<(LinkId, SocketAddr), Warning>,
    buffer: Vec<u8>,
    stats: Stats,
}

impl Network {
    /// Opens the shared port for every address family that the system has.
    pub(crate) fn open(mut config: BeaconConfig, registry: Registry) -> Result<Self, BeaconError> {
        let (port, listeners) =
            open_listeners(config.port).map_err(|source| BeaconError::Bind { port: config.port, source })?;
        config.port = port;
        let mut network = Self {
            config,
            registry,
            listeners: BTreeMap::new(),
            speakers: BTreeMap::new(),
            memberships: BTreeSet::new(),
            ready: BTreeSet::new(),
            next_token: FIRST_TOKEN,
            names: BTreeMap::new(),
            refused: Vec::new(),
            unreachable: BTreeMap::new(),
            buffer: vec![0; BUFFER_BYTES],
            stats: Stats::default(),
        };
        for mut listener in listeners {
            let token = network.take_token();
            let registered = network.registry.register(&mut listener.socket, token, Interest::READABLE);
            registered.map_err(|source| BeaconError::Thread { source })?;
            network.listeners.insert(token, listener);
        }
        Ok(network)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.config.port
    }

    pub(crate) const fn stats(&self) -> Stats {
        self.stats
    }

    pub(crate) fn warnings(&self) -> Vec<Warning> {
        self.refused.iter().chain(self.unreachable.values()).cloned().collect()
    }

    /// Reads the list of interfaces, opens and closes sockets accordingly and returns the links that can be used.
    pub(crate) fn refresh(&mut self) -> io::Result<Vec<Link>> {
        let candidates = interfaces::list(&self.config.interfaces).inspect_err(|error| {
            self.refused = vec![Warning::InterfacesUnreadable { reason: error.to_string() }];
        })?;
        self.refused.clear();
        self.names = candidates.iter().map(|candidate| (candidate.id, candidate.name.clone())).collect();
        self.update_memberships(&candidates);
        self.update_speakers(&candidates);
        Ok(candidates.iter().filter_map(|candidate| self.link(candidate)).collect())
    }

    /// Notes that a socket may have datagrams.
    pub(crate) fn mark_ready(&mut self, token: Token) {
        self.ready.insert(token);
    }

    /// Hands the datagrams that wait to `take`, a bounded number a call; `true` if more may wait.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(LinkId, SocketAddr, &[u8])) -> bool {
        let mut budget = READS_A_TURN;
        for token in std::mem::take(&mut self.ready) {
            // A socket closed since it was marked is no longer found; its token is never given again.
            while budget > 0 {
                budget -= 1;
                match self.receive_one(token, &mut take) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::trace!(%error, "a socket could not be read");
                        break;
                    }
                }
            }
            if budget == 0 {
                self.ready.insert(token);
            }
        }
        !self.ready.is_empty()
    }

    fn receive_one(
        &mut self,
        token: Token,
        take: &mut impl FnMut(LinkId, SocketAddr, &[u8]),
    ) -> io::Result<()> {
        if let Some(listener) = self.listeners.get(&token) {
            let received = listener.receive(&mut self.buffer)?;
            let datagrams = self.buffer[..received.bytes].chunks(received.stride.max(1));
            for datagram in datagrams {
                self.stats.datagrams_received += 1;
                if let Some(link) = received.link {
                    take(link, received.source, datagram);
                }
            }
            return Ok(());
        }
        let speaker = self.speakers.get(&token).ok_or(io::ErrorKind::WouldBlock)?;
        let (bytes, source) = speaker.socket.recv_from(&mut self.buffer)?;
        self.stats.datagrams_received += 1;
        take(speaker.voice.link, source, &self.buffer[..bytes]);
        Ok(())
    }

    /// Sends a datagram: to everybody from each of our addresses on the link, or to one peer.
    pub(crate) fn send(&mut self, transmit: &Transmit) {
        let speakers = self.speakers.values().filter(|speaker| speaker.voice.link == transmit.link);
        let mut outcomes = Vec::new();
        match transmit.destination {
            Destination::Everybody => {
                for speaker in speakers {
                    for &destination in &speaker.voice.everybody {
                        let outcome = speaker.socket.send_to(&transmit.contents, destination);
                        outcomes.push((destination, outcome));
                    }
                }
                for (destination, outcome) in outcomes {
                    self.note_sent(transmit.link, destination, &outcome);
                }
            }
            Destination::Peer(address) => {
                let mut speakers = speakers.filter(|speaker| speaker.reaches(address));
                let Some(speaker) = speakers.next() else { return };
                match speaker.socket.send_to(&transmit.contents, address) {
                    Ok(_) => self.stats.datagrams_sent += 1,
                    Err(error) => {
                        self.stats.send_failures += 1;
                        tracing::trace!(%address, %error, "an answer could not be sent");
                    }
                }
            }
        }
    }

    fn note_sent(&mut self, link: LinkId, destination: SocketAddr, outcome: &io::Result<usize>) {
        let key = (link, destination);
        let Err(error) = outcome else {
            self.stats.datagrams_sent += 1;
            self.unreachable.remove(&key);
            return;
        };
        self.stats.send_failures += 1;
        let interface = self.names.get(&link).cloned().unwrap_or_default();
        let warning = Warning::SendFailed { interface, destination, reason: error.to_string() };
        tracing::debug!(%warning);
        self.unreachable.insert(key, warning);
    }

    fn update_memberships(&mut self, candidates: &[Candidate]) {
        let groups = [self.config.group_v4.map(IpAddr::V4), self.config.group_v6.map(IpAddr::V6)];
        let mut wanted = BTreeSet::new();
        for candidate in candidates {
            for group in groups.into_iter().flatten() {
                let has_family =
                    if group.is_ipv4() { !candidate.v4.is_empty() } else { candidate.v6.is_some() };
                if has_family {
                    wanted.insert((candidate.id, group));
                }
            }
        }
        for &(link, group) in self.memberships.difference(&wanted) {
            if let Some(listener) = self.listener(group) {
                listener.leave(group, link);
            }
        }
        let mut joined = BTreeSet::new();
        for (link, group) in wanted {
            let Some(listener) = self.listener(group) else { continue };
            match listener.join(group, link) {
                Ok(()) => {
                    joined.insert((link, group));
                }
                Err(error) => {
                    let interface = self.names.get(&link).cloned().unwrap_or_default();
                    let warning = Warning::GroupRefused { interface, group, reason: error.to_string() };
                    tracing::debug!(%warning);
                    self.refused.push(warning);
                }
            }
        }
        self.memberships = joined;
    }

    fn update_speakers(&mut self, candidates: &[Candidate]) {
        let mut wanted: Vec<Voice> = candidates.iter().flat_map(|candidate| self.voices(candidate)).collect();
        self.speakers.retain(|_, speaker| {
            let position = wanted.iter().position(|voice| *voice == speaker.voice);
            position.map(|index| wanted.swap_remove(index)).is_some()
        });
        for voice in wanted {
            let (link, address) = (voice.link, voice.address);
            let token = self.take_token();
            let opened = Speaker::open(voice).and_then(|mut speaker| {
                self.registry.register(&mut speaker.socket, token, Interest::READABLE)?;
                Ok(speaker)
            });
            match opened {
                Ok(speaker) => {
                    self.speakers.insert(token, speaker);
                }
                Err(error) => {
                    let interface = self.names.get(&link).cloned().unwrap_or_default();
                    let warning = Warning::AddressUnusable { interface, address, reason: error.to_string() };
                    tracing::debug!(%warning);
                    self.refused.push(warning);
                }
            }
        }
        let speakers = &self.speakers;
        self.unreachable.retain(|(link, destination), _| {
            speakers.values().any(|speaker| speaker.voice.speaks_to(*link, *destination))
        });
    }

    /// From which addresses to speak on an interface, and to whom from each.
    fn voices(&self, candidate: &Candidate) -> Vec<Voice> {
        let link = candidate.id;
        let mut group_v4 = self.config.group_v4;
        let mut voices = Vec::new();
        for v4 in &candidate.v4 {
            let broadcast = v4.broadcast.filter(|_| self.config.broadcast);
            // Every address has its own broadcast address, but the group is one for the interface.
            let destinations = [broadcast, group_v4.take()].into_iter().flatten();
            let everybody = destinations.map(|ip| SocketAddr::from((ip, self.config.port))).collect();
            voices.push(Voice { link, address: v4.address.into(), everybody });
        }
        // Linux has no route for IPv6 multicast on loopback, and IPv4 serves there.
        if let (Some(address), Some(group)) = (candidate.v6, self.config.group_v6) {
            let group = SocketAddrV6::new(group, self.config.port, 0, link.0);
            voices.push(Voice { link, address: address.into(), everybody: vec![group.into()] });
        }
        voices.retain(|voice| self.listener(voice.address).is_some());
        voices
    }

    fn link(&self, candidate: &Candidate) -> Option<Link> {
        let voices = self.speakers.values().filter(|speaker| speaker.voice.link == candidate.id);
        let datagrams_per_round: usize = voices.map(|speaker| speaker.voice.everybody.len()).sum();
        let (name, networks) = (candidate.name.clone(), candidate.networks.clone());
        (datagrams_per_round > 0).then_some(Link { id: candidate.id, name, networks, datagrams_per_round })
    }

    fn listener(&self, family: IpAddr) -> Option<&Listener> {
        self.listeners.values().find(|listener| listener.family.is_ipv4() == family.is_ipv4())
    }

    const fn take_token(&mut self) -> Token {
        let token = self.next_token;
        self.next_token = Token(token.0.wrapping_add(1));
        token
    }
}

/// Opens the port for each family; a system without one of the families has the other.
fn open_listeners(port: u16) -> io::Result<(u16, Vec<Listener>)> {
    let claim = if port == 0 { Claim::Found } else { Claim::Join };
    let mut failure = None;
    for _ in 0..FREE_PORT_TRIES {
        let (mut chosen, mut listeners) = (port, Vec::new());
        failure = None;
        for family in FAMILIES {
            match Listener::open(family, chosen, claim) {
                Ok(listener) => {
                    chosen = listener.socket.local_addr()?.port();
                    listeners.push(listener);
                }
                Err(error) if is_refusal(&error) => failure = Some(error),
                Err(error) => {
                    tracing::debug!(%family, %error, "the system lacks an address family");
                    if listeners.is_empty() && family.is_ipv6() {
                        failure = Some(error);
                    }
                }
            }
        }
        if failure.is_none() {
            return Ok((chosen, listeners));
        }
        if claim == Claim::Join {
            break;
        }
    }
    Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// The port is held by somebody, or not for us to use: not a matter of the address family.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

/// Tokens below are the worker's own.
const FIRST_TOKEN: Token = Token(16);

/// The largest datagram, or sequence of datagrams merged by the system, that one read can bring.
const BUFFER_BYTES: usize = 65_536;

/// Datagrams read before timers and requests get their turn.
const READS_A_TURN: usize = 256;

/// A free port of one family may be taken in the other; a few tries find one that is free in both.
const FREE_PORT_TRIES: usize = 16;
