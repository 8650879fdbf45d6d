use std::net::SocketAddr;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::candidate::{MappedSocketAddr, PortRule};
use super::port_map::PortMapFailure;
use super::stun::{StunClient, StunEvent, StunFailure};
use super::{Datagram, Machine, Seed, Transmit};

mod stream;

pub(crate) use stream::StreamMapper;

/// Learns the addresses of a socket from several STUN servers, and from their differences what the NAT does with ports.
///
/// Gives one event and is done.
#[derive(Debug)]
pub struct Mapper {
    stun: StunClient,
    wanted: usize,
    answers: Answers,
    end: Instant,
    state: State,
}

/// What a [`Mapper`] learned; partial success is success.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mapping {
    /// The addresses that servers see.
    pub addresses: Vec<MappedSocketAddr>,
    /// Servers with two addresses, and what they call the other one (RFC 5780).
    pub others: Vec<(SocketAddr, SocketAddr)>,
    /// Which servers did not help, and why.
    pub failures: Vec<MapFailure>,
}

/// A server or router that did not help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MapFailure {
    /// A router does not forward the port.
    #[error("no port mapping")]
    PortMap(#[source] PortMapFailure),
    /// A STUN server failed.
    #[error("STUN server {server}: {failure}")]
    Stun {
        /// The server.
        server: SocketAddr,
        /// What happened.
        #[source]
        failure: StunFailure,
    },
    /// A STUN server had not answered when the time was over or others had told enough.
    #[error("STUN server {server}: no answer in time")]
    Late {
        /// The server.
        server: SocketAddr,
    },
    /// No connection to a STUN server came about, or it ended without an answer.
    #[error("STUN server {server}: the connection failed")]
    Connection {
        /// The server.
        server: SocketAddr,
    },
    /// A STUN server claims an address that most others do not see.
    #[error("STUN server {server} sees {claimed}, but most others do not")]
    Disagrees {
        /// The server.
        server: SocketAddr,
        /// What it says.
        claimed: SocketAddr,
    },
}

impl Mapper {
    /// Begins to ask at `now` and ends at `deadline` with what is known by then.
    #[must_use]
    pub fn new(now: Instant, servers: &[SocketAddr], seed: Seed, deadline: Instant) -> Self {
        let stun = StunClient::new(now, servers, seed);
        let mut pending: Vec<SocketAddr> = Vec::new();
        for server in servers {
            if pending.len() < StunClient::MAX_SERVERS && !pending.contains(server) {
                pending.push(*server);
            }
        }
        let answers = Answers::from_servers(pending);
        let end = if answers.pending.is_empty() { now } else { deadline };
        Self { stun, wanted: answers.pending.len(), answers, end, state: State::Asking }
    }

    /// Two answers tell what there is to know; others get this much longer.
    pub const GRACE: Duration = Duration::from_millis(300);

    /// What is known before the end, once enough servers have answered to tell something. Others may correct it.
    #[must_use]
    pub fn so_far(&self) -> Option<Vec<MappedSocketAddr>> {
        let enough = self.state == State::Asking && self.answers.seen.len() >= ENOUGH;
        enough.then(|| self.answers.clone().conclude().addresses)
    }

    fn take_answers(&mut self, now: Instant) {
        let before = self.answers.seen.len();
        while let Some(event) = self.stun.poll_event() {
            self.answers.take(event);
        }
        let seen = self.answers.seen.len();
        if seen > before && seen >= ENOUGH {
            self.end = self.end.min(now + Self::GRACE);
        }
        if self.state == State::Asking && (self.answers.pending.is_empty() || now >= self.end) {
            self.state = State::Known;
        }
    }
}

impl Machine for Mapper {
    type Event = Mapping;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.stun.handle_datagram(now, datagram);
        self.take_answers(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.stun.handle_timeout(now);
        self.take_answers(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.stun.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.state != State::Asking {
            return None;
        }
        let ask = self.stun.poll_timeout();
        Some(ask.map_or(self.end, |ask| ask.min(self.end)))
    }

    fn poll_event(&mut self) -> Option<Mapping> {
        if self.state != State::Known {
            return None;
        }
        self.state = State::Told;
        debug_assert!(self.answers.seen.len() <= self.wanted);
        Some(std::mem::take(&mut self.answers).conclude())
    }
}

/// `Asking` → `Known` → `Told`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asking,
    Known,
    Told,
}

/// What servers have said so far.
#[derive(Debug, Clone, Default)]
struct Answers {
    /// All servers in the order in which they were asked.
    asked: Vec<SocketAddr>,
    seen: Vec<(SocketAddr, SocketAddr)>,
    others: Vec<(SocketAddr, SocketAddr)>,
    failures: Vec<MapFailure>,
    pending: Vec<SocketAddr>,
}

impl Answers {
    fn from_servers(asked: Vec<SocketAddr>) -> Self {
        Self { pending: asked.clone(), asked, ..Self::default() }
    }

    fn take(&mut self, event: StunEvent) {
        let (StunEvent::Mapped { server, .. } | StunEvent::Failed { server, .. }) = event;
        self.pending.retain(|pending| *pending != server);
        match event {
            StunEvent::Mapped { server, address, other } => {
                self.seen.push((server, address));
                self.others.extend(other.map(|other| (server, other)));
            }
            StunEvent::Failed { server, failure } => self.failures.push(MapFailure::Stun { server, failure }),
        }
    }

    fn conclude(mut self) -> Mapping {
        self.failures.extend(self.pending.iter().map(|server| MapFailure::Late { server: *server }));
        // Ports were given out in the order of the questions, not of the answers.
        self.seen.sort_by_key(|(server, _)| self.asked.iter().position(|asked| asked == server));
        let mut addresses = Vec::new();
        if let Some(agreed) = majority(&self.seen) {
            addresses.push(MappedSocketAddr::reflexive(agreed, PortRule::Stable));
            for (server, claimed) in self.seen.iter().filter(|(_, claimed)| *claimed != agreed) {
                self.failures.push(MapFailure::Disagrees { server: *server, claimed: *claimed });
            }
        } else {
            let mut ips: Vec<_> = self.seen.iter().map(|(_, address)| address.ip()).collect();
            ips.dedup();
            for ip in ips {
                let ports: Vec<u16> =
                    self.seen.iter().filter(|(_, at)| at.ip() == ip).map(|(_, at)| at.port()).collect();
                let known = addresses.iter().any(|known: &MappedSocketAddr| known.addr.ip() == ip);
                if !known && let Some((last, rule)) = port_rule(&ports) {
                    addresses.push(MappedSocketAddr::reflexive(SocketAddr::new(ip, last), rule));
                }
            }
        }
        Mapping { addresses, others: self.others, failures: self.failures }
    }
}

/// What more than half of at least two servers say.
fn majority(seen: &[(SocketAddr, SocketAddr)]) -> Option<SocketAddr> {
    let votes = |address: &SocketAddr| seen.iter().filter(|(_, other)| other == address).count();
    let winner = seen.iter().map(|(_, address)| *address).find(|address| votes(address) * 2 > seen.len())?;
    (seen.len() >= ENOUGH).then_some(winner)
}

/// The last port given out and the rule behind ports that several servers saw.
pub(super) fn port_rule(ports: &[u16]) -> Option<(u16, PortRule)> {
    let (first, rest) = ports.split_first()?;
    if rest.is_empty() {
        return Some((*first, PortRule::Unknown));
    }
    if rest.iter().all(|port| port == first) {
        return Some((*first, PortRule::Stable));
    }
    let mut sorted: Vec<i32> = ports.iter().map(|port| i32::from(*port)).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let step = sorted.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(0);
    let spread = sorted[sorted.len() - 1] - sorted[0];
    let last = ports[ports.len() - 1];
    if step == 0 || step > MAX_STEP || spread > step * MAX_SPREAD {
        return Some((last, PortRule::Random));
    }
    let falling = ports.windows(2).all(|pair| pair[1] < pair[0]);
    let (end, step) = if falling { (sorted[0], -step) } else { (sorted[sorted.len() - 1], step) };
    let last = u16::try_from(end).expect("it was a port");
    Some((last, PortRule::Sequential(i16::try_from(step).expect("at most MAX_STEP"))))
}

/// Answers that tell a NAT's port rule.
const ENOUGH: usize = 2;

/// NATs that count use steps of 1 or 2; beyond this, two random ports that happen to be close are as likely.
const MAX_STEP: i32 = 8;

/// Other hosts behind the same NAT take ports in between.
const MAX_SPREAD: i32 = 8;

#[cfg(test)]
mod tests;
