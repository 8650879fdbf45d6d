use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::nat_pmp::{self, Answer};
use super::pcp::{self, Nonce, Opcode};
use super::{Epoch, MAX_LIFETIME, PortMapFailure, PortMapMethod, PortMapRequest, PortMapping, SERVER_PORT};
use crate::protocol::{Datagram, Due, Machine, Random, Retry, Seed, SocketIndex, Transmit};

/// One port, forwarded by one router that is asked by PCP or NAT-PMP: asks for it, renews it at half of its life, asks
/// anew when the router has restarted, and gives it back.
///
/// Its socket [`MAIN`](SocketIndex::MAIN) is to be bound to the address that the port belongs to. Datagrams that come to
/// [`ANNOUNCEMENTS`](Self::ANNOUNCEMENTS) are those that routers send to all hosts.
#[derive(Debug)]
pub struct PortMapClient {
    wire: Wire,
    router: SocketAddr,
    request: PortMapRequest,
    random: Random,
    epoch: Epoch,
    state: State,
    /// When the router last gave the mapping.
    answered: Option<Instant>,
    /// The pause after a renewal that nobody answered.
    pause: Duration,
    /// What the router gave, and until when it holds.
    mapping: Option<(PortMapping, Instant)>,
    /// NAT-PMP tells address and port in two answers.
    address: Option<Ipv4Addr>,
    port: Option<(u16, Duration)>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<ClientEvent>,
}

/// What a [`PortMapClient`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The port is forwarded, or from another outside address than before.
    Mapped(PortMapping),
    /// The router does not do it. The client is at its end.
    Failed(PortMapFailure),
    /// The router no longer does it. The client is at its end.
    Lost(PortMapFailure),
    /// The port has been given back, or nobody answered to that. The client is at its end.
    Closed,
}

/// `Opening` → `Open` ⇄ `Renewing` → `Closing` → `Closed`; failures lead from anywhere to `Closed`.
#[derive(Debug)]
enum State {
    Opening(Retry),
    Open { renew: Instant, check: Instant },
    Renewing(Retry),
    Closing(Retry),
    Closed,
}

#[derive(Debug, Clone, Copy)]
enum Wire {
    Pcp(Nonce),
    NatPmp,
}

impl PortMapClient {
    /// Begins to ask at `now`.
    ///
    /// # Panics
    ///
    /// If `method` is UPnP, which is no protocol of datagrams.
    #[must_use]
    pub fn new(
        now: Instant,
        method: PortMapMethod,
        router: SocketAddr,
        request: PortMapRequest,
        seed: Seed,
    ) -> Self {
        let mut random = Random::new(seed);
        let wire = match method {
            PortMapMethod::Pcp => Wire::Pcp(Nonce::draw(&mut random)),
            PortMapMethod::NatPmp => Wire::NatPmp,
            PortMapMethod::Upnp => panic!("UPnP is spoken over HTTP"),
        };
        Self {
            wire,
            router,
            request,
            random,
            epoch: Epoch::default(),
            state: State::Opening(Retry::with(now, FIRST_WAIT, SENDINGS, FIRST_WAIT)),
            answered: None,
            pause: MIN_PAUSE,
            mapping: None,
            address: None,
            port: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The socket for what routers announce to all hosts.
    pub const ANNOUNCEMENTS: SocketIndex = SocketIndex(1);

    /// The sockets of this host's other ports: what the router answers there tells its clock, so that it need not be asked here as well.
    pub const SIBLINGS: SocketIndex = SocketIndex(2);

    /// Gives the port back. [`ClientEvent::Closed`] follows, at the latest after the time of three requests.
    pub fn release(&mut self, now: Instant) {
        if !matches!(self.state, State::Closing(_) | State::Closed) {
            self.state = State::Closing(Retry::with(now, FIRST_WAIT, SENDINGS, FIRST_WAIT));
            self.handle_timeout(now);
        }
    }

    /// Whether the router has not answered yet.
    pub(super) const fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening(_))
    }

    const fn method(&self) -> PortMapMethod {
        match self.wire {
            Wire::Pcp(_) => PortMapMethod::Pcp,
            Wire::NatPmp => PortMapMethod::NatPmp,
        }
    }

    fn refused(&self, reason: impl Into<Cow<'static, str>>) -> PortMapFailure {
        PortMapFailure::Refused { method: self.method(), router: self.router.ip(), reason: reason.into() }
    }

    fn fail(&mut self, failure: PortMapFailure) {
        let event = match self.state {
            State::Opening(_) => ClientEvent::Failed(failure),
            State::Open { .. } | State::Renewing(_) => ClientEvent::Lost(failure),
            State::Closing(_) => ClientEvent::Closed,
            State::Closed => return,
        };
        self.state = State::Closed;
        self.events.push_back(event);
    }

    fn ask(&mut self, lifetime: Duration) {
        let lifetime_s = u32::try_from(lifetime.min(MAX_LIFETIME).as_secs()).expect("at most a day");
        let local = self.request.local;
        let suggested = match self.mapping {
            _ if lifetime_s == 0 => SocketAddr::new(unspecified_like(local.ip()), 0),
            Some((mapping, _)) => mapping.external,
            None => SocketAddr::new(unspecified_like(local.ip()), local.port()),
        };
        match self.wire {
            Wire::Pcp(nonce) => self.transmit(
                pcp::MapRequest {
                    client: local.ip(),
                    lifetime_s,
                    nonce,
                    protocol: self.request.protocol,
                    internal_port: local.port(),
                    suggested,
                }
                .encode(),
            ),
            Wire::NatPmp => {
                if lifetime_s > 0 {
                    self.transmit(nat_pmp::Request::Address.encode());
                }
                let map = nat_pmp::Request::Map {
                    protocol: self.request.protocol,
                    internal_port: local.port(),
                    suggested_port: suggested.port(),
                    lifetime_s,
                };
                self.transmit(map.encode());
            }
        }
    }

    /// Asks for nothing but the router's clock.
    fn ask_epoch(&mut self) {
        self.transmit(match self.wire {
            Wire::Pcp(_) => pcp::announce_request(self.request.local.ip()),
            Wire::NatPmp => nat_pmp::Request::Address.encode(),
        });
    }

    fn transmit(&mut self, bytes: Vec<u8>) {
        let destination = self.router;
        self.transmits.push_back(Transmit { socket: SocketIndex::MAIN, destination, bytes, hops: None });
    }

    fn handle_pcp(&mut self, now: Instant, ours: Nonce, response: pcp::Response, to_all: bool) {
        match response.opcode {
            Opcode::Announce => {
                if response.result == pcp::ResultCode::SUCCESS {
                    self.check_epoch(now, response.epoch_s, to_all);
                }
            }
            Opcode::Map { nonce, protocol, internal_port, external } => {
                let is_ours = nonce == ours
                    && protocol == self.request.protocol.number()
                    && internal_port == self.request.local.port();
                if !is_ours || to_all {
                    return;
                }
                if response.result != pcp::ResultCode::SUCCESS {
                    return self.fail(self.refused(response.result.reason()));
                }
                // This very answer renews, so that a restart before it needs no further request.
                self.epoch.check(now, response.epoch_s);
                self.take_mapping(now, external, Duration::from_secs(u64::from(response.lifetime_s)));
            }
        }
    }

    fn handle_nat_pmp(&mut self, now: Instant, response: nat_pmp::Response, to_all: bool) {
        if response.result != nat_pmp::ResultCode::SUCCESS {
            if !to_all {
                self.fail(self.refused(response.result.reason()));
            }
            return;
        }
        let restarted = !self.check_epoch(now, response.epoch_s, to_all);
        match response.answer {
            Some(Answer::Address(ip)) => {
                let moved = self.mapping.is_some_and(|(mapping, _)| mapping.external.ip() != ip);
                if matches!(self.state, State::Open { .. }) && (restarted || moved) {
                    return self.renew_soon(now);
                }
                if !to_all {
                    self.address = Some(ip);
                }
            }
            Some(Answer::Map { protocol, internal_port, external_port, lifetime_s }) => {
                let ours = protocol == self.request.protocol && internal_port == self.request.local.port();
                if ours && !to_all {
                    self.port = Some((external_port, Duration::from_secs(u64::from(lifetime_s))));
                }
            }
            None => return,
        }
        if matches!(self.state, State::Closing(_))
            && let Some((_, Duration::ZERO)) = self.port
        {
            return self.take_mapping(now, self.router, Duration::ZERO);
        }
        if let (Some(ip), Some((port, lifetime))) = (self.address, self.port) {
            self.take_mapping(now, SocketAddr::new(ip.into(), port), lifetime);
        }
    }

    fn take_mapping(&mut self, now: Instant, external: SocketAddr, lifetime: Duration) {
        match self.state {
            State::Opening(_) | State::Renewing(_) => {}
            State::Closing(_) if lifetime.is_zero() => {
                self.state = State::Closed;
                return self.events.push_back(ClientEvent::Closed);
            }
            // The answer to a request that was sent twice.
            State::Open { .. } | State::Closing(_) | State::Closed => return,
        }
        if lifetime.is_zero() || external.port() == 0 || external.ip().is_unspecified() {
            return self.fail(self.refused("it gives no address"));
        }
        let lifetime = lifetime.min(MAX_LIFETIME);
        let known = self.mapping.map(|(mapping, _)| mapping.external);
        let mapping = PortMapping {
            external,
            method: self.method(),
            router: self.router.ip(),
            lifetime: Some(lifetime),
        };
        self.mapping = Some((mapping, now + lifetime));
        (self.address, self.port) = (None, None);
        self.pause = MIN_PAUSE;
        self.answered = Some(now);
        // From a half to five eighths of the life, so that hosts that began together do not ask together.
        let eighth = u64::try_from((lifetime / 8).as_nanos()).unwrap_or(u64::MAX).max(1);
        let renew = now + (lifetime / 2 + Duration::from_nanos(self.random.below(eighth))).max(MIN_PAUSE);
        self.state = State::Open { renew, check: now + CHECK_PERIOD };
        if known != Some(external) {
            self.events.push_back(ClientEvent::Mapped(mapping));
        }
    }

    /// Whether the router's clock has gone on; if not, it has restarted, and is asked anew. What is said to all hosts may
    /// come from anyone and is not remembered.
    fn check_epoch(&mut self, now: Instant, epoch_s: u32, to_all: bool) -> bool {
        let mut epoch = self.epoch;
        let mut has_gone_on = epoch.check(now, epoch_s);
        if to_all {
            // Seconds are too coarse for a router that restarts soon after its answer; it announces itself for a reason.
            let age = Duration::from_secs(u64::from(epoch_s));
            has_gone_on &= self.answered.is_none_or(|answered| answered + age > now);
        } else {
            self.epoch = epoch;
        }
        if !has_gone_on {
            self.renew_soon(now);
        }
        has_gone_on
    }

    /// The router has answered to another port of this host.
    fn handle_sibling(&mut self, now: Instant, bytes: &[u8]) {
        let by_pcp = || pcp::Response::decode(bytes).map(|response| response.epoch_s);
        let epoch = nat_pmp::Response::decode(bytes).map(|response| response.epoch_s).or_else(by_pcp);
        let Some(epoch_s) = epoch else { return };
        if self.check_epoch(now, epoch_s, true)
            && let State::Open { check, .. } = &mut self.state
        {
            *check = now + CHECK_PERIOD;
        }
    }

    /// The router has restarted, and all its hosts hear of it at once; or it may be another one.
    pub(super) fn renew_soon(&mut self, now: Instant) {
        if let State::Open { renew, .. } = &mut self.state {
            let pause = u64::try_from(MIN_PAUSE.as_nanos()).expect("a second");
            *renew = (*renew).min(now + Duration::from_nanos(self.random.below(pause)));
        }
    }

    fn silent(&self) -> PortMapFailure {
        PortMapFailure::Silent { method: self.method(), router: self.router.ip() }
    }

    /// Nobody has answered to a renewal. A router that announces its restart may take some seconds more to answer; one that
    /// is gone is asked ever more rarely, but at half of the time that is left.
    fn try_again_later(&mut self, now: Instant) {
        let left = self.mapping.map_or(Duration::ZERO, |(_, end)| end.saturating_duration_since(now));
        if left.is_zero() {
            self.fail(self.silent());
        } else {
            let renew = now + self.pause.min(left / 2).max(MIN_PAUSE).min(left);
            self.pause = self.pause.saturating_mul(2);
            self.state = State::Open { renew, check: renew + CHECK_PERIOD };
        }
    }
}

impl Machine for PortMapClient {
    type Event = ClientEvent;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let from_router = datagram.source.ip().to_canonical() == self.router.ip().to_canonical()
            && datagram.source.port() == self.router.port();
        if from_router && datagram.socket == Self::SIBLINGS {
            return self.handle_sibling(now, datagram.bytes);
        }
        let to_all = datagram.socket == Self::ANNOUNCEMENTS;
        if !from_router || (datagram.socket != SocketIndex::MAIN && !to_all) {
            return;
        }
        match self.wire {
            Wire::Pcp(nonce) => {
                if let Some(response) = pcp::Response::decode(datagram.bytes) {
                    self.handle_pcp(now, nonce, response, to_all);
                } else if !to_all && nat_pmp::Response::decode(datagram.bytes).is_some() {
                    // RFC 6887, section 9: a router that knows only NAT-PMP says so in its own language.
                    self.fail(self.refused(pcp::ResultCode::UNSUPP_VERSION.reason()));
                }
            }
            Wire::NatPmp => {
                if let Some(response) = nat_pmp::Response::decode(datagram.bytes) {
                    self.handle_nat_pmp(now, response, to_all);
                } else if let Some(response) = pcp::Response::decode(datagram.bytes) {
                    if to_all {
                        // A router that speaks both announces itself by one of them.
                        self.check_epoch(now, response.epoch_s, to_all);
                    } else {
                        self.fail(self.refused(nat_pmp::ResultCode::UNSUPPORTED_VERSION.reason()));
                    }
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        let lifetime = self.request.lifetime;
        match &mut self.state {
            State::Opening(retry) => match retry.poll(now) {
                Due::Nothing => {}
                Due::Send => self.ask(lifetime),
                Due::GiveUp => self.fail(self.silent()),
            },
            State::Open { renew, check } => {
                if now >= *renew {
                    let mut retry = Retry::with(now, FIRST_WAIT, SENDINGS, FIRST_WAIT);
                    retry.poll(now);
                    self.state = State::Renewing(retry);
                    self.ask(lifetime);
                } else if now >= *check {
                    *check = now + CHECK_PERIOD;
                    self.ask_epoch();
                }
            }
            State::Renewing(retry) => match retry.poll(now) {
                Due::Nothing => {}
                Due::Send => self.ask(lifetime),
                Due::GiveUp => self.try_again_later(now),
            },
            State::Closing(retry) => match retry.poll(now) {
                Due::Nothing => {}
                Due::Send => self.ask(Duration::ZERO),
                Due::GiveUp => self.fail(self.silent()),
            },
            State::Closed => {}
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Opening(retry) | State::Renewing(retry) | State::Closing(retry) => Some(retry.timeout()),
            State::Open { renew, check } => Some((*renew).min(*check)),
            State::Closed => None,
        }
    }

    fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }
}

/// Where the router listens.
pub(super) fn server_at(router: SocketAddr) -> SocketAddr {
    let mut server = router;
    server.set_port(SERVER_PORT);
    server
}

const fn unspecified_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The first wait for an answer, RFC 6886's. PCP's is three seconds, for routers far away; ours is on the same link, and
/// a caller waits.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Sendings of one request, at 0 and 250 ms, the end after 500 ms: two losses in a row on a link of one's own are rare,
/// and most routers speak none of this.
const SENDINGS: u32 = 2;

/// The least time between two renewals, whatever lifetimes or announcements the router, or who plays it, sends.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// How often the router's clock is asked for: after that time at most a restart is known, even if its announcement was
/// lost. One datagram each way.
const CHECK_PERIOD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
