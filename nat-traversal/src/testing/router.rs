use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::protocol::port_map::{ANNOUNCEMENT_PORT, PortProtocol, nat_pmp, pcp};
use crate::protocol::{Datagram, Machine, SocketIndex, Transmit};

/// A router that forwards ports when asked by PCP or NAT-PMP.
///
/// Put into a [`Net`](super::Net) by [`Net::add_router`](super::Net::add_router) it opens the NAT it belongs to; as a
/// [`Machine`] it can answer at any socket.
#[derive(Debug)]
pub struct Router {
    /// The outside address that it tells.
    pub external: IpAddr,
    /// Whether it understands PCP; without, it answers to it as RFC 6886 says.
    pub speaks_pcp: bool,
    /// Whether it understands NAT-PMP.
    pub speaks_nat_pmp: bool,
    /// It refuses all mappings with this code, of PCP and of NAT-PMP.
    pub refuses: Option<u8>,
    /// It answers nothing at all.
    pub is_silent: bool,
    /// The longest lifetime that it grants.
    pub max_lifetime: Duration,
    started: Instant,
    forwardings: BTreeMap<(u8, u16), Forwarding>,
    transmits: VecDeque<Transmit>,
}

/// A port that a [`Router`] forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarding {
    /// Where to.
    pub inside: SocketAddr,
    /// Until when.
    pub end: Instant,
    nonce: Option<pcp::Nonce>,
}

impl Router {
    /// A router that understands both protocols and has been running since `now`.
    #[must_use]
    pub const fn new(now: Instant, external: IpAddr) -> Self {
        Self {
            external,
            speaks_pcp: true,
            speaks_nat_pmp: true,
            refuses: None,
            is_silent: false,
            max_lifetime: Duration::from_secs(24 * 60 * 60),
            started: now,
            forwardings: BTreeMap::new(),
            transmits: VecDeque::new(),
        }
    }

    /// Forgets everything; `announces` whether it tells all hosts.
    pub fn restart(&mut self, now: Instant, announces: bool) {
        self.started = now;
        self.forwardings.clear();
        if !announces {
            return;
        }
        let announcement = pcp::Response {
            result: pcp::ResultCode::SUCCESS,
            lifetime_s: 0,
            epoch_s: 0,
            opcode: pcp::Opcode::Announce,
        };
        if self.speaks_pcp {
            self.send(TO_ALL, announcement.encode());
        }
        if let (true, IpAddr::V4(external)) = (self.speaks_nat_pmp, self.external) {
            let answer = Some(nat_pmp::Answer::Address(external));
            let response = nat_pmp::Response { result: nat_pmp::ResultCode::SUCCESS, epoch_s: 0, answer };
            self.send(TO_ALL, response.encode(nat_pmp::Request::Address));
        }
    }

    /// The ports that it forwards at that time: their numbers and where to.
    #[must_use]
    pub fn forwardings(&self, now: Instant) -> Vec<(u16, Forwarding)> {
        let alive = self.forwardings.iter().filter(|(_, forwarding)| forwarding.end > now);
        alive.map(|((_, port), forwarding)| (*port, *forwarding)).collect()
    }

    /// Where a packet to an outside port goes.
    pub(super) fn forward(&self, now: Instant, protocol: u8, port: u16) -> Option<SocketAddr> {
        let forwarding = self.forwardings.get(&(protocol, port))?;
        (forwarding.end > now).then_some(forwarding.inside)
    }

    fn send(&mut self, destination: SocketAddr, bytes: Vec<u8>) {
        self.transmits.push_back(Transmit { socket: SocketIndex::MAIN, destination, bytes, hops: None });
    }

    fn epoch_s(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(u32::MAX)
    }

    fn map(&mut self, now: Instant, wanted: Wanted) -> (u16, u32) {
        let number = wanted.protocol.number();
        let same = |forwarding: &Forwarding| forwarding.inside == wanted.inside;
        let known =
            self.forwardings.iter().find(|(key, value)| key.0 == number && same(value)).map(|(key, _)| *key);
        if wanted.lifetime_s == 0 {
            if let Some(key) = known.filter(|key| self.forwardings[key].nonce == wanted.nonce) {
                self.forwardings.remove(&key);
            }
            return (0, 0);
        }
        self.forwardings.retain(|_, forwarding| forwarding.end > now);
        let free = |port: &u16| *port > 1_023 && !self.forwardings.contains_key(&(number, *port));
        let port =
            known.map(|key| key.1).filter(|_| known.is_some_and(|key| self.forwardings.contains_key(&key)));
        let port = port.or_else(|| Some(wanted.suggested_port).filter(free));
        let port = port.or_else(|| (FIRST_PORT..=u16::MAX).find(free)).unwrap_or(0);
        let lifetime = Duration::from_secs(u64::from(wanted.lifetime_s)).min(self.max_lifetime);
        let forwarding = Forwarding { inside: wanted.inside, end: now + lifetime, nonce: wanted.nonce };
        self.forwardings.insert((number, port), forwarding);
        (port, u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX))
    }

    fn answer_pcp(&mut self, now: Instant, source: SocketAddr, request: pcp::MapRequest) {
        let mismatch = request.client != source.ip();
        let refusal = self.refuses.or_else(|| mismatch.then_some(pcp::ResultCode::ADDRESS_MISMATCH.0));
        let (port, lifetime_s) = if refusal.is_some() {
            (request.suggested.port(), 60)
        } else {
            let inside = SocketAddr::new(request.client, request.internal_port);
            self.map(
                now,
                Wanted {
                    protocol: request.protocol,
                    inside,
                    suggested_port: request.suggested.port(),
                    lifetime_s: request.lifetime_s,
                    nonce: Some(request.nonce),
                },
            )
        };
        let response = pcp::Response {
            result: refusal.map_or(pcp::ResultCode::SUCCESS, pcp::ResultCode),
            lifetime_s,
            epoch_s: self.epoch_s(now),
            opcode: pcp::Opcode::Map {
                nonce: request.nonce,
                protocol: request.protocol.number(),
                internal_port: request.internal_port,
                external: SocketAddr::new(self.external, port),
            },
        };
        self.send(source, response.encode());
    }

    fn answer_nat_pmp(&mut self, now: Instant, source: SocketAddr, request: nat_pmp::Request) {
        let answer = match (request, self.external) {
            _ if self.refuses.is_some() => None,
            (nat_pmp::Request::Address, IpAddr::V4(external)) => Some(nat_pmp::Answer::Address(external)),
            (
                nat_pmp::Request::Map { protocol, internal_port, suggested_port, lifetime_s },
                IpAddr::V4(_),
            ) => {
                let inside = SocketAddr::new(source.ip(), internal_port);
                let wanted = Wanted { protocol, inside, suggested_port, lifetime_s, nonce: None };
                let (external_port, lifetime_s) = self.map(now, wanted);
                Some(nat_pmp::Answer::Map { protocol, internal_port, external_port, lifetime_s })
            }
            _ => None,
        };
        let code = if answer.is_some() { 0 } else { u16::from(self.refuses.unwrap_or(NO_ADDRESS)) };
        let response =
            nat_pmp::Response { result: nat_pmp::ResultCode(code), epoch_s: self.epoch_s(now), answer };
        self.send(source, response.encode(request));
    }
}

impl Machine for Router {
    type Event = ();

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let (source, bytes) = (datagram.source, datagram.bytes);
        if self.is_silent {
            return;
        }
        match bytes.first() {
            Some(2) if self.speaks_pcp => {
                if pcp::is_announce_request(bytes) {
                    let response = pcp::Response {
                        result: pcp::ResultCode::SUCCESS,
                        lifetime_s: 0,
                        epoch_s: self.epoch_s(now),
                        opcode: pcp::Opcode::Announce,
                    };
                    self.send(source, response.encode());
                } else if let Some(request) = pcp::MapRequest::decode(bytes) {
                    self.answer_pcp(now, source, request);
                }
            }
            Some(2) if self.speaks_nat_pmp => {
                let mut refusal = vec![0, bytes.get(1).unwrap_or(&0) | 0x80, 0, 1];
                refusal.extend(self.epoch_s(now).to_be_bytes());
                self.send(source, refusal);
            }
            Some(0) if self.speaks_nat_pmp => {
                if let Some(request) = nat_pmp::Request::decode(bytes) {
                    self.answer_nat_pmp(now, source, request);
                }
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }
}

/// What both protocols ask for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    protocol: PortProtocol,
    inside: SocketAddr,
    suggested_port: u16,
    lifetime_s: u32,
    nonce: Option<pcp::Nonce>,
}

/// All hosts of a link.
const TO_ALL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)), ANNOUNCEMENT_PORT);

/// Given to those whose wish is taken.
const FIRST_PORT: u16 = 20_000;

/// NAT-PMP's code for a router without an outside address.
const NO_ADDRESS: u8 = 3;
