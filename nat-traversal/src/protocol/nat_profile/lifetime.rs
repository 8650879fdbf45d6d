use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::protocol::stun::client::{binding_request, read_answer, request_to_port};
use crate::protocol::stun::{Message, TransactionId};
use crate::protocol::{Datagram, Due, Machine, Random, Retry, Seed, SocketIndex, Transmit};

/// Measures how long an outside port lives without traffic (RFC 4787, section 4.3), by a server that sends its answer to
/// another port than the question came from ([RFC 5780, section 4.6](https://www.rfc-editor.org/rfc/rfc5780#section-4.6)).
///
/// The main socket asks. Each of the others opens a port of its own, is silent for a time of its own, from none to the
/// longest that is of interest, and then has the main one ask the server to send there. What arrives shows that the port
/// was still open. Since all are silent at the same time, it takes no longer than the longest of these times. One event
/// tells the outcome, and it is done.
///
/// ```text
/// main    ·  ask for 0's port      ask for 1's port      ask for 2's port
/// 0       open ◄─ arrives
/// 1        open ──────── silent ───────►◄─ arrives
/// 2         open ────────────────── silent ──────────────────►✗ closed by now: it lives for 1's time, and not for 2's
/// ```
#[derive(Debug)]
pub struct LifetimeProber {
    random: Random,
    server: SocketAddr,
    ports: Vec<Port>,
    end: Instant,
    state: State,
    transmits: VecDeque<Transmit>,
}

/// How long an outside port lives without traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindingLifetime {
    /// It was open after the first time, and closed after the second.
    Between(Duration, Duration),
    /// It was still open after the longest time.
    AtLeast(Duration),
    /// The server does not send answers to another port, or does not answer.
    Unknown,
}

impl BindingLifetime {
    /// For how long it lives at least.
    #[must_use]
    pub const fn at_least(self) -> Option<Duration> {
        match self {
            Self::Between(alive, _) | Self::AtLeast(alive) => Some(alive),
            Self::Unknown => None,
        }
    }
}

/// `Measuring` → `Known` → `Told`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Measuring,
    Known(BindingLifetime),
    Told,
}

/// A socket that opens a port and is silent from then on.
#[derive(Debug)]
struct Port {
    silence: Duration,
    transaction: TransactionId,
    stage: Stage,
}

/// `Opening` → `Silent` → `Knocking` → `Open` or `Closed`.
#[derive(Debug)]
enum Stage {
    Opening { retry: Retry, sent: Instant },
    Silent { port: u16, until: Instant },
    Knocking { port: u16, retry: Retry },
    Open,
    Closed,
}

impl LifetimeProber {
    /// Begins at `now`, to find lifetimes up to `most`, which is taken for a second if it is shorter and for
    /// [`LONGEST`](Self::LONGEST) if it is longer.
    #[must_use]
    pub fn new(now: Instant, server: SocketAddr, most: Duration, seed: Seed) -> Self {
        let most = most.clamp(SHORTEST, Self::LONGEST);
        let mut random = Random::new(seed);
        let ports = (0..=STEPS).map(|step| {
            let begin = now + OPENING_PACE * step;
            let retry = Retry::with(begin, FIRST_WAIT, SENDINGS, LAST_WAIT);
            let transaction = TransactionId::draw(&mut random);
            Port { silence: most * step / STEPS, transaction, stage: Stage::Opening { retry, sent: begin } }
        });
        let ports = ports.collect();
        Self {
            random,
            server,
            ports,
            end: now + Self::takes(most),
            state: State::Measuring,
            transmits: VecDeque::new(),
        }
    }

    /// Lifetimes beyond are as good as any.
    pub const LONGEST: Duration = Duration::from_secs(900);

    /// How long it takes at most to find lifetimes up to `most`.
    #[must_use]
    pub fn takes(most: Duration) -> Duration {
        most.clamp(SHORTEST, Self::LONGEST) + OPENING_PACE * STEPS + PATIENCE * 2
    }

    fn send_due(&mut self, now: Instant) {
        for (number, port) in (1_u16..).zip(&mut self.ports) {
            let (socket, bytes) = match &mut port.stage {
                Stage::Opening { retry, sent } => match retry.poll(now) {
                    Due::Nothing => continue,
                    Due::Send => {
                        *sent = now;
                        (SocketIndex(number), binding_request(port.transaction, None))
                    }
                    Due::GiveUp => {
                        port.stage = Stage::Closed;
                        continue;
                    }
                },
                Stage::Silent { port: outside, until } if now >= *until => {
                    port.transaction = TransactionId::draw(&mut self.random);
                    let mut retry = Retry::with(now, FIRST_WAIT, SENDINGS, LAST_WAIT);
                    let outside = *outside;
                    retry.poll(now);
                    port.stage = Stage::Knocking { port: outside, retry };
                    (SocketIndex::MAIN, request_to_port(port.transaction, outside))
                }
                Stage::Knocking { port: outside, retry } => match retry.poll(now) {
                    Due::Nothing => continue,
                    Due::Send => (SocketIndex::MAIN, request_to_port(port.transaction, *outside)),
                    Due::GiveUp => {
                        port.stage = Stage::Closed;
                        continue;
                    }
                },
                Stage::Silent { .. } | Stage::Open | Stage::Closed => continue,
            };
            self.transmits.push_back(Transmit { socket, destination: self.server, bytes, hops: None });
        }
    }

    /// Ends when the answer is there.
    fn proceed(&mut self, now: Instant) {
        if self.state != State::Measuring {
            return;
        }
        // Without the first, which was not silent at all, nothing is known of the server's help.
        if matches!(self.ports[0].stage, Stage::Closed) {
            self.state = State::Known(BindingLifetime::Unknown);
            return;
        }
        let settled =
            self.ports.iter().take_while(|port| matches!(port.stage, Stage::Open | Stage::Closed)).count();
        let closed_in_a_row = self.ports[..settled]
            .windows(2)
            .position(|pair| pair.iter().all(|port| matches!(port.stage, Stage::Closed)));
        // One alone may have lost its packets.
        let is_over = closed_in_a_row.is_some() || settled == self.ports.len() || now >= self.end;
        if is_over {
            self.state = State::Known(conclude(&self.ports[..settled]));
        }
    }
}

fn conclude(settled: &[Port]) -> BindingLifetime {
    let Some(last_open) = settled.iter().rposition(|port| matches!(port.stage, Stage::Open)) else {
        return BindingLifetime::Unknown;
    };
    let alive = settled[last_open].silence;
    match settled.get(last_open + 1) {
        Some(closed) => BindingLifetime::Between(alive, closed.silence),
        None => BindingLifetime::AtLeast(alive),
    }
}

impl Machine for LifetimeProber {
    type Event = BindingLifetime;

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        let Ok(message) = Message::decode(datagram.bytes) else { return };
        if datagram.source != self.server || self.state != State::Measuring {
            return;
        }
        let Some(answer) = read_answer(&message) else { return };
        let asked = |(_, port): &(u16, &mut Port)| port.transaction == message.transaction();
        let Some((number, port)) = (1_u16..).zip(&mut self.ports).find(asked) else { return };
        match (&port.stage, answer) {
            (Stage::Opening { sent, .. }, Ok(seen)) if datagram.socket == SocketIndex(number) => {
                port.stage = Stage::Silent { port: seen.port(), until: *sent + port.silence };
            }
            (Stage::Knocking { .. }, Ok(_)) if datagram.socket == SocketIndex(number) => {
                port.stage = Stage::Open
            }
            // It came to who asked: the server does not know of answers elsewhere.
            (Stage::Knocking { .. }, _) if datagram.socket == SocketIndex::MAIN => {
                self.state = State::Known(BindingLifetime::Unknown);
            }
            _ => {}
        }
        self.proceed(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.state == State::Measuring {
            self.send_due(now);
            self.proceed(now);
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.state != State::Measuring {
            return None;
        }
        let due = self.ports.iter().filter_map(|port| match &port.stage {
            Stage::Opening { retry, .. } | Stage::Knocking { retry, .. } => Some(retry.timeout()),
            Stage::Silent { until, .. } => Some(*until),
            Stage::Open | Stage::Closed => None,
        });
        Some(due.min().map_or(self.end, |due| due.min(self.end)))
    }

    fn poll_event(&mut self) -> Option<BindingLifetime> {
        let State::Known(lifetime) = self.state else { return None };
        self.state = State::Told;
        Some(lifetime)
    }
}

/// Times that are tried, beside none at all: a lifetime is known to so much of the longest.
const STEPS: u32 = 24;

/// Packets would not be through in less.
const SHORTEST: Duration = Duration::from_secs(1);

/// Ports are opened one after the other, since servers bound how often they answer one address.
const OPENING_PACE: Duration = Duration::from_millis(100);

/// Each question goes out at 0, 250 and 750 ms and is given up after 1,150.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const SENDINGS: u32 = 3;
const LAST_WAIT: Duration = Duration::from_millis(400);

/// For all sendings of a question.
const PATIENCE: Duration = Duration::from_millis(1_200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::StunServer;
    use crate::protocol::stun::{Class, MessageBuilder, Method, ServerAddresses};
    use crate::testing::{Link, Nat, Net, Program, Running};

    #[test]
    fn the_lifetime_of_every_nat_is_found() {
        for nat in [Nat::easy(), Nat::easy_random(), Nat::cone(), Nat::hard(), Nat::hard_sequential()] {
            for seconds in [10, 30, 61, 119] {
                let nat = Nat { lifetime: Duration::from_secs(seconds), ..nat };
                let (found, took) = measure(&[nat], Duration::from_secs(120), Link::delay(MS * 20));
                let BindingLifetime::Between(alive, closed) = found else { panic!("{nat:?}: {found:?}") };
                assert!(alive <= nat.lifetime && nat.lifetime <= closed, "{nat:?}: {found:?}");
                assert_eq!(closed.saturating_sub(alive), Duration::from_secs(5));
                assert!(took <= closed + Duration::from_secs(12), "it ends when it knows: {took:?}");
            }
        }
    }

    #[test]
    fn of_two_nats_the_one_that_forgets_sooner_counts_and_no_longer_than_asked_is_waited() {
        let short = Nat { lifetime: Duration::from_secs(30), ..Nat::easy() };
        let (found, _) = measure(&[Nat::easy(), short], Duration::from_secs(48), Link::delay(MS * 20));
        assert_eq!(found, BindingLifetime::Between(Duration::from_secs(28), Duration::from_secs(30)));
        let (found, took) = measure(&[Nat::easy()], Duration::from_secs(48), Link::delay(MS * 20));
        assert_eq!(found, BindingLifetime::AtLeast(Duration::from_secs(48)));
        assert!(took <= LifetimeProber::takes(Duration::from_secs(48)), "{took:?}");
    }

    #[test]
    fn a_lost_packet_is_not_taken_for_a_closed_port() {
        let nat = Nat { lifetime: Duration::from_secs(60), ..Nat::easy() };
        let (found, _) = measure(&[nat], Duration::from_secs(120), Link::delay(MS * 20).loss(0.1));
        let BindingLifetime::Between(alive, closed) = found else { panic!("{found:?}") };
        assert!(alive >= Duration::from_secs(50) && alive <= nat.lifetime, "{found:?}");
        assert!(closed >= nat.lifetime - Duration::from_secs(5), "{found:?}");
    }

    #[test]
    fn a_server_that_cannot_help_is_told_at_once_and_one_that_is_silent_soon() {
        let mut prober =
            LifetimeProber::new(crate::testing::epoch(), server(), Duration::from_secs(120), Seed::from(1));
        let start = crate::testing::epoch();
        let mut now = start;
        while let Some(due) = prober.poll_timeout() {
            now = now.max(due);
            prober.handle_timeout(now);
            while prober.poll_transmit().is_some() {}
        }
        assert_eq!(prober.poll_event(), Some(BindingLifetime::Unknown));
        assert!(now <= start + Duration::from_secs(2));
        assert_eq!(prober.poll_event(), None);
    }

    #[test]
    fn it_is_told_once_whatever_comes_after() {
        let mut now = crate::testing::epoch();
        let mut prober = LifetimeProber::new(now, server(), Duration::from_secs(1), Seed::from(1));
        let seen = "198.51.100.2:4000".parse().unwrap();
        // A server that knows nothing of answers elsewhere, and repeats itself.
        let mut told = 0;
        for _ in 0..50 {
            now += MS * 100;
            prober.handle_timeout(now);
            let sent: Vec<Transmit> = std::iter::from_fn(|| prober.poll_transmit()).collect();
            assert!(told == 0 || sent.is_empty(), "nothing is asked any more");
            for Transmit { socket, bytes, .. } in sent.iter().chain(&sent) {
                let transaction = Message::decode(bytes).unwrap().transaction();
                let builder = MessageBuilder::new(Class::Success, Method::BINDING, transaction);
                let bytes = builder.mapped_address(seen).fingerprint();
                prober.handle_datagram(now, Datagram { socket: *socket, source: server(), bytes: &bytes });
                while let Some(lifetime) = prober.poll_event() {
                    assert_eq!(lifetime, BindingLifetime::Unknown);
                    told += 1;
                }
            }
        }
        assert_eq!(told, 1);
    }

    fn measure(nats: &[Nat], most: Duration, link: Link) -> (BindingLifetime, Duration) {
        let mut net = Net::new(Seed::from(1));
        let node = net.host(None, "203.0.113.10", Link::default());
        net.bind(node, 3478);
        let mut behind = None;
        for (level, nat) in nats.iter().rev().enumerate() {
            let (address, link) =
                if level == 0 { ("198.51.100.2", link) } else { ("100.64.0.2", Link::default()) };
            behind = Some(net.nat(behind, address, link, *nat));
        }
        let host = net.host(behind, "192.168.1.11", Link::default());
        net.bind(host, 4000);
        let mut answering = Running::new(StunServer::new(ServerAddresses::One));
        let prober = LifetimeProber::new(net.now(), server(), most, Seed::from(1));
        let mut prober = Running::until(prober, |_| true);
        let mut programs: [(_, &mut dyn Program); 2] = [(node, &mut answering), (host, &mut prober)];
        net.run(&mut programs, Duration::from_secs(3_600));
        (prober.events()[0].1, net.elapsed())
    }

    fn server() -> SocketAddr {
        "203.0.113.10:3478".parse().unwrap()
    }

    const MS: Duration = Duration::from_millis(1);
}
