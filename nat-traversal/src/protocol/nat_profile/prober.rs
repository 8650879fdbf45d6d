use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Filtering, Mapping, NatProfile, Ports};
use crate::protocol::stun::client::{binding_request, read_answer, request_to_port};
use crate::protocol::stun::{Class, Message, MessageBuilder, Method, StunClient, TransactionId};
use crate::protocol::{Datagram, Due, Machine, Random, Retry, Seed, SocketIndex, Transmit, is_global};

mod conclusions;

/// Measures a [`NatProfile`] within three seconds, by a server with two addresses as
/// [RFC 5780](https://www.rfc-editor.org/rfc/rfc5780) says, or as far as several ordinary servers tell.
///
/// It uses nine sockets, of which the first is the main one. One event tells all, and it is done.
///
/// ```text
/// MAIN       asks all servers, then the other three of the addresses and ports of one with two: mapping, ports
/// FILTERING  has that server answer from elsewhere: filtering
/// HAIRPIN    and MAIN send to each other's outside addresses: hairpin
/// NEAR…      send to the server's other address packets that die after 2, 3, 4 routers, and have it answer from there: how
///            far away the outermost router is that has to be opened, and so whether there is a second NAT
/// BLIND…     where everybody is let in and ports are kept: send nothing but such packets, and MAIN has the server answer to
///            their ports (RFC 5780, section 7.5)
/// ```
#[derive(Debug)]
pub struct NatProber {
    random: Random,
    hosts: Vec<SocketAddr>,
    local_port: u16,
    further_ports: Vec<u16>,
    probes: Vec<Probe>,
    /// The server with two addresses: as it was asked, and the other one.
    two: Option<(SocketAddr, SocketAddr)>,
    hairpin: Hairpin,
    begun: Instant,
    stage: Stage,
    transmits: VecDeque<Transmit>,
}

/// `Asking` → `Mapping` → `Filtering` → `Blind` → `Known` → `Told`; without a server with two addresses straight to `Known`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// All servers are asked from the main socket.
    Asking {
        until: Instant,
    },
    /// The server's other addresses are asked from it.
    Mapping,
    /// What needs the answers before.
    Filtering,
    /// What is worth it only where everybody is let in.
    Blind,
    Known,
    Told,
}

/// One question, asked until it is answered or given up.
#[derive(Debug)]
struct Probe {
    kind: Kind,
    socket: SocketIndex,
    destination: SocketAddr,
    /// Where the answer is to come from.
    answerer: SocketAddr,
    change: Option<u32>,
    transaction: TransactionId,
    retry: Retry,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The address of the main socket, as seen by this destination.
    Address,
    /// An answer from another address and port, or from another port only.
    FromElsewhere,
    FromOtherPort,
    /// The address of the second socket of the hairpin.
    HairpinAddress,
    /// An answer that passes once a packet with so many hops was sent.
    Near(u8),
    /// The same to the port of a socket that sends nothing else.
    Blind(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Pending,
    Answered(SocketAddr),
    Silent,
}

/// Two sockets of ours that send to each other's outside addresses.
#[derive(Debug)]
enum Hairpin {
    Waiting,
    Sending { retry: Retry, transaction: TransactionId, addresses: [SocketAddr; 2] },
    Works,
    Fails,
}

impl NatProber {
    /// Begins at `now`; `hosts` are the addresses of this host at which the main socket, of port `local_port`, is reached.
    #[must_use]
    pub fn new(
        now: Instant,
        servers: &[SocketAddr],
        hosts: &[SocketAddr],
        local_port: u16,
        seed: Seed,
    ) -> Self {
        let mut prober = Self {
            random: Random::new(seed),
            hosts: hosts.to_vec(),
            local_port,
            further_ports: Vec::new(),
            probes: Vec::new(),
            two: None,
            hairpin: Hairpin::Waiting,
            begun: now,
            stage: Stage::Asking { until: now + ASKING },
            transmits: VecDeque::new(),
        };
        let mut known: Vec<SocketAddr> = Vec::new();
        for server in servers {
            if known.len() < StunClient::MAX_SERVERS && !known.contains(server) {
                known.push(*server);
                prober.ask(now, Kind::Address, SocketIndex::MAIN, *server, *server, None);
            }
        }
        if known.is_empty() {
            prober.stage = Stage::Known;
        }
        prober
    }

    /// Tells the ports to which its further sockets are bound, from the second on; without them it knows less of NATs that let
    /// everybody in.
    #[must_use]
    pub fn further_ports(mut self, ports: &[u16]) -> Self {
        self.further_ports = ports.to_vec();
        self
    }

    /// Sockets beside the main one that it can make use of.
    pub const FURTHER: usize = BLIND.0 as usize + NEAR.len() - 1;

    /// It ends by then whatever happens.
    pub const MOST: Duration = Duration::from_millis(2_900);

    fn ask(
        &mut self,
        now: Instant,
        kind: Kind,
        socket: SocketIndex,
        destination: SocketAddr,
        answerer: SocketAddr,
        change: Option<u32>,
    ) {
        let transaction = TransactionId::draw(&mut self.random);
        let retry = Retry::with(now, FIRST_WAIT, SENDINGS, LAST_WAIT);
        let outcome = Outcome::Pending;
        self.probes.push(Probe { kind, socket, destination, answerer, change, transaction, retry, outcome });
    }

    /// Goes on to the next stage if this one has come to its end.
    fn proceed(&mut self, now: Instant) {
        let pending = |prober: &Self| prober.probes.iter().any(|probe| probe.outcome == Outcome::Pending);
        if now >= self.begun + Self::MOST && self.stage != Stage::Told {
            self.stage = Stage::Known;
        }
        match self.stage {
            Stage::Asking { until } => {
                if let Some((server, other)) = self.two {
                    self.stage = Stage::Mapping;
                    for destination in [
                        SocketAddr::new(server.ip(), other.port()),
                        SocketAddr::new(other.ip(), server.port()),
                        other,
                    ] {
                        self.ask(now, Kind::Address, SocketIndex::MAIN, destination, destination, None);
                    }
                    self.ask(now, Kind::HairpinAddress, HAIRPIN, server, server, None);
                } else if !pending(self) || now >= until {
                    self.begin_hairpin(now);
                }
            }
            Stage::Mapping => {
                let (server, other) = self.two.expect("this stage is about that server");
                match self.outcome_at(other) {
                    Outcome::Answered(_) => {
                        self.stage = Stage::Filtering;
                        let far = SocketAddr::new(server.ip(), other.port());
                        self.ask(now, Kind::FromElsewhere, FILTERING, server, other, Some(CHANGE_BOTH));
                        self.ask(now, Kind::FromOtherPort, FILTERING, server, far, Some(CHANGE_PORT));
                        // A NAT whose ports depend on the address only has the same for both ports of the server.
                        let by_address = self.mapping(&self.addresses()) == Some(Mapping::AddressDependent);
                        let (answerer, change) =
                            if by_address { (far, CHANGE_PORT) } else { (other, CHANGE_BOTH) };
                        // Later, so that a server's bound on answers to one address is not reached.
                        for (socket, hops) in (NEAREST.0..).map(SocketIndex).zip(NEAR) {
                            let begin = now + STAGGER;
                            self.ask(begin, Kind::Near(hops), socket, server, answerer, Some(change));
                        }
                    }
                    // The server has no second address after all.
                    Outcome::Silent => self.stage = Stage::Filtering,
                    Outcome::Pending => {}
                }
            }
            Stage::Filtering => {
                let hairpin = matches!(self.hairpin, Hairpin::Sending { .. });
                if !pending(self) && !hairpin {
                    self.stage = Stage::Known;
                    self.begin_blind(now);
                }
            }
            Stage::Blind if !pending(self) => self.stage = Stage::Known,
            Stage::Blind | Stage::Known | Stage::Told => {}
        }
    }

    /// With ordinary servers only the hairpin is left to be measured.
    fn begin_hairpin(&mut self, now: Instant) {
        self.probes.iter_mut().filter(|probe| probe.outcome == Outcome::Pending).for_each(|probe| {
            probe.outcome = Outcome::Silent;
        });
        let answered = self.probes.iter().find(|probe| matches!(probe.outcome, Outcome::Answered(_)));
        match answered.map(|probe| probe.destination) {
            Some(server) => {
                self.stage = Stage::Filtering;
                self.ask(now, Kind::HairpinAddress, HAIRPIN, server, server, None);
            }
            None => self.stage = Stage::Known,
        }
    }

    /// Where everybody is let in, what opens a NAT tells nothing, but what makes a port there does.
    fn begin_blind(&mut self, now: Instant) {
        let Some((server, _)) = self.two else { return };
        let profile = self.conclude();
        let open = profile.filtering == Some(Filtering::EndpointIndependent);
        let kept = profile.ports == Some(Ports::Preserved);
        if !(open && kept && profile.mapping == Some(Mapping::EndpointIndependent)) {
            return;
        }
        for (socket, hops) in (BLIND.0..).map(SocketIndex).zip(NEAR) {
            if self.further_ports.len() >= usize::from(socket.0) {
                self.stage = Stage::Blind;
                self.ask(now, Kind::Blind(hops), socket, server, server, None);
            }
        }
    }

    fn outcome_at(&self, destination: SocketAddr) -> Outcome {
        let asked =
            self.probes.iter().find(|probe| probe.kind == Kind::Address && probe.destination == destination);
        asked.map_or(Outcome::Silent, |probe| probe.outcome)
    }

    /// A server's other address, if it may be sent to: a server must not point us at our own network.
    fn take_other(&mut self, server: SocketAddr, other: SocketAddr) {
        let differs = other.ip() != server.ip() && other.port() != server.port() && other.port() != 0;
        let same_family = other.is_ipv4() == server.is_ipv4();
        let allowed = is_global(other.ip()) || !is_global(server.ip());
        if self.two.is_none() && differs && same_family && allowed {
            self.two = Some((server, other));
        }
    }

    fn take_hairpin_address(&mut self, now: Instant, second: SocketAddr) {
        let main = self.probes.iter().find_map(|probe| match probe.outcome {
            Outcome::Answered(address) if probe.kind == Kind::Address => Some(address),
            _ => None,
        });
        if let Some(main) = main {
            let retry = Retry::with(now, FIRST_WAIT, SENDINGS, LAST_WAIT);
            let transaction = TransactionId::draw(&mut self.random);
            self.hairpin = Hairpin::Sending { retry, transaction, addresses: [main, second] };
        }
    }

    fn transmit(&mut self, socket: SocketIndex, destination: SocketAddr, bytes: Vec<u8>, hops: Option<u8>) {
        self.transmits.push_back(Transmit { socket, destination, bytes, hops });
    }

    fn send_due(&mut self, now: Instant) {
        for index in 0..self.probes.len() {
            let probe = &mut self.probes[index];
            if probe.outcome != Outcome::Pending {
                continue;
            }
            match probe.retry.poll(now) {
                Due::Nothing => {}
                Due::Send => {
                    let (socket, destination, other) = (probe.socket, probe.destination, probe.answerer);
                    let transaction = probe.transaction;
                    let (asker, request) = match probe.kind {
                        Kind::Blind(_) => {
                            let port = self.further_ports[usize::from(socket.0) - 1];
                            (SocketIndex::MAIN, request_to_port(transaction, port))
                        }
                        _ => (socket, binding_request(transaction, probe.change)),
                    };
                    if let Kind::Near(hops) | Kind::Blind(hops) = probe.kind {
                        let opener = MessageBuilder::new(Class::Indication, Method::BINDING, transaction);
                        self.transmit(socket, other, opener.fingerprint(), Some(hops));
                    }
                    self.transmit(asker, destination, request, None);
                }
                Due::GiveUp => probe.outcome = Outcome::Silent,
            }
        }
        self.send_hairpin(now);
    }

    fn send_hairpin(&mut self, now: Instant) {
        let Hairpin::Sending { retry, transaction, addresses: [main, second] } = &mut self.hairpin else {
            return;
        };
        match retry.poll(now) {
            Due::Nothing => {}
            Due::Send => {
                let bytes = binding_request(*transaction, None);
                let (main, second) = (*main, *second);
                self.transmit(SocketIndex::MAIN, second, bytes.clone(), None);
                self.transmit(HAIRPIN, main, bytes, None);
            }
            Due::GiveUp => self.hairpin = Hairpin::Fails,
        }
    }
}

impl Machine for NatProber {
    type Event = NatProfile;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let Ok(message) = Message::decode(datagram.bytes) else { return };
        if let Hairpin::Sending { transaction, .. } = self.hairpin
            && message.class() == Class::Request
            && message.transaction() == transaction
        {
            self.hairpin = Hairpin::Works;
            return self.proceed(now);
        }
        let is_answer = |probe: &&mut Probe| {
            probe.outcome == Outcome::Pending
                && probe.transaction == message.transaction()
                && probe.socket == datagram.socket
                && probe.answerer == datagram.source
        };
        let Some(probe) = self.probes.iter_mut().find(is_answer) else { return };
        let Some(answer) = read_answer(&message) else { return };
        probe.outcome = answer.map_or(Outcome::Silent, Outcome::Answered);
        let (kind, destination, outcome) = (probe.kind, probe.destination, probe.outcome);
        match (kind, outcome) {
            (Kind::Address, Outcome::Answered(_)) => {
                if let (Stage::Asking { .. }, Some(other)) = (self.stage, message.other_address()) {
                    self.take_other(destination, other);
                }
            }
            (Kind::HairpinAddress, Outcome::Answered(second)) => self.take_hairpin_address(now, second),
            _ => {}
        }
        self.proceed(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.send_due(now);
        self.proceed(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.stage, Stage::Known | Stage::Told) {
            return None;
        }
        let probes = self.probes.iter().filter(|probe| probe.outcome == Outcome::Pending);
        let mut due = probes.map(|probe| probe.retry.timeout()).min().unwrap_or(self.begun + Self::MOST);
        if let Hairpin::Sending { retry, .. } = &self.hairpin {
            due = due.min(retry.timeout());
        }
        if let Stage::Asking { until } = self.stage {
            due = due.min(until);
        }
        Some(due.min(self.begun + Self::MOST))
    }

    fn poll_event(&mut self) -> Option<NatProfile> {
        if self.stage != Stage::Known {
            return None;
        }
        self.stage = Stage::Told;
        Some(self.conclude())
    }
}

/// The sockets beside the main one; those of the distances have one each.
const FILTERING: SocketIndex = SocketIndex(1);
const HAIRPIN: SocketIndex = SocketIndex(2);
const NEAREST: SocketIndex = SocketIndex(3);
const BLIND: SocketIndex = SocketIndex(6);

/// A packet that may pass two routers opens the first one and dies at the second.
const NEAR: [u8; 3] = [2, 3, 4];

/// CHANGE-REQUEST (RFC 5780, section 7.2): answer from the other address and port, or from the other port.
const CHANGE_BOTH: u32 = 6;
const CHANGE_PORT: u32 = 2;

/// How long the first answers are waited for: by then a server has been asked three times.
const ASKING: Duration = Duration::from_millis(1_000);

/// Each question goes out at 0, 250 and 750 ms and is given up after 1,150: with a tenth of all packets lost each way one
/// in 150 finds no answer that there is.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const SENDINGS: u32 = 3;
const LAST_WAIT: Duration = Duration::from_millis(400);

/// See [`StunServer::MAX_ANSWERS`](crate::protocol::StunServer::MAX_ANSWERS), which others have as well.
const STAGGER: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests;
