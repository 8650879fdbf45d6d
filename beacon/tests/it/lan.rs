//! A local network in memory: every machine is a `Discovery`, time is virtual, and all chance comes from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use beacon::protocol::{
    Destination, Discovery, DiscoveryConfig, Event, Link, LinkId, Network, News, Packet, Seed,
};

pub(crate) const LINK: LinkId = LinkId(1);

/// One link with machines on it.
pub(crate) struct Lan {
    pub(crate) now: Instant,
    pub(crate) begin: Instant,
    pub(crate) hosts: Vec<Host>,
    /// What part of the copies of datagrams is lost.
    pub(crate) loss: f64,
    /// The longest time a datagram takes.
    pub(crate) delay: Duration,
    /// How many copies an announcement to everybody has.
    pub(crate) copies: usize,
    pub(crate) log: Vec<Sent>,
    flying: BTreeMap<(Instant, u64), Flying>,
    count: u64,
    chance: u64,
}

pub(crate) struct Host {
    pub(crate) machine: Discovery,
    pub(crate) events: Vec<(Duration, Event)>,
    pub(crate) is_up: bool,
    /// By how much its clock is ahead of the others'.
    pub(crate) clock_ahead: Duration,
    pub(crate) has_clock: bool,
    present: BTreeSet<usize>,
    /// When the machine wants to be called.
    due: Option<Instant>,
}

/// A datagram on the wire, counted once for each copy.
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) from: SocketAddr,
    pub(crate) destination: Destination,
    pub(crate) bytes: Vec<u8>,
}

struct Flying {
    to: usize,
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl Lan {
    pub(crate) fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let begin = Instant::now();
        Self {
            now: begin,
            begin,
            hosts: Vec::new(),
            loss: 0.0,
            delay: Duration::from_millis(2),
            copies: 1,
            log: Vec::new(),
            flying: BTreeMap::new(),
            count: 0,
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// Adds a machine that begins now and announces its number.
    pub(crate) fn join(&mut self) -> usize {
        self.join_with(DiscoveryConfig::default())
    }

    pub(crate) fn join_with(&mut self, config: DiscoveryConfig) -> usize {
        let number = self.hosts.len();
        let machine = Discovery::new(config, self.seed(), &data(number)).expect("it is small");
        self.add(machine)
    }

    /// Adds a machine that begins now and announces nothing.
    pub(crate) fn join_listening(&mut self) -> usize {
        self.join_listening_with(DiscoveryConfig::default())
    }

    pub(crate) fn join_listening_with(&mut self, config: DiscoveryConfig) -> usize {
        let machine = Discovery::listening(config, self.seed());
        self.add(machine.expect("it has an identity of usual length"))
    }

    fn seed(&mut self) -> Seed {
        let mut seed = [0; 32];
        for chunk in seed.chunks_mut(8) {
            chunk.copy_from_slice(&self.draw().to_be_bytes());
        }
        Seed::new(seed)
    }

    fn add(&mut self, mut machine: Discovery) -> usize {
        let number = self.hosts.len();
        machine.set_links(self.now, vec![self.link(number)]);
        self.hosts.push(Host {
            machine,
            events: Vec::new(),
            is_up: true,
            clock_ahead: Duration::ZERO,
            has_clock: true,
            present: BTreeSet::new(),
            due: None,
        });
        self.collect(number);
        number
    }

    pub(crate) fn link(&self, number: usize) -> Link {
        let network = Network { address: address(number).ip(), prefix_bits: 8 };
        Link { id: LINK, name: "net0".into(), networks: vec![network], datagrams_per_round: self.copies }
    }

    /// Runs for a time.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
        self.now = end;
    }

    /// Runs until `done`, and tells how long that took; `None` if it is not done within `limit`.
    pub(crate) fn run_to(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        self.run_until(begin + limit, &done);
        done(self).then(|| self.now.duration_since(begin))
    }

    fn run_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let hosts = self.hosts.iter().enumerate().filter(|(_, host)| host.is_up);
            let timer = hosts.filter_map(|(number, host)| Some((host.due?, number))).min();
            match (arrival, timer) {
                (Some(at), timer) if at <= end && timer.is_none_or(|(due, _)| at <= due) => {
                    self.now = at.max(self.now);
                    let (_, flying) = self.flying.pop_first().expect("it was just seen");
                    self.deliver(flying.to, flying.from, &flying.bytes);
                }
                (_, Some((due, number))) if due <= end => {
                    self.now = due.max(self.now);
                    self.set_clock(number);
                    self.hosts[number].machine.handle_timeout(self.now);
                    self.collect(number);
                }
                _ => return,
            }
        }
    }

    /// Lets a machine look at its clock, as its driver does at each turn.
    fn set_clock(&mut self, number: usize) {
        let (now, begin) = (self.now, self.begin);
        let host = &mut self.hosts[number];
        if host.has_clock {
            host.machine.set_clock(now, CLOCK_AT_THE_BEGIN + now.duration_since(begin) + host.clock_ahead);
        }
    }

    /// Asks something of a machine.
    pub(crate) fn tell(&mut self, number: usize, ask: impl FnOnce(&mut Discovery, Instant)) {
        ask(&mut self.hosts[number].machine, self.now);
        self.collect(number);
    }

    /// Hands a datagram to a machine, as an attacker might.
    pub(crate) fn deliver(&mut self, to: usize, from: SocketAddr, bytes: &[u8]) {
        if self.hosts[to].is_up {
            self.set_clock(to);
            self.hosts[to].machine.handle_datagram(self.now, LINK, from, bytes);
            self.collect(to);
        }
    }

    /// Puts on the wire what a machine wants to send, and notes what it learned and when it wants to be called.
    fn collect(&mut self, number: usize) {
        self.hosts[number].due = self.hosts[number].machine.poll_timeout();
        let at = self.now.duration_since(self.begin);
        while let Some(transmit) = self.hosts[number].machine.poll_transmit() {
            let (from, bytes) = (address(number), transmit.contents);
            match transmit.destination {
                Destination::Everybody => {
                    for _ in 0..self.copies {
                        for to in 0..self.hosts.len() {
                            self.fly(to, from, &bytes);
                        }
                        let (destination, bytes) = (transmit.destination, bytes.clone());
                        self.log.push(Sent { at, from, destination, bytes });
                    }
                }
                Destination::Peer(peer) => {
                    if let Some(to) = self.number(peer) {
                        self.fly(to, from, &bytes);
                    }
                    self.log.push(Sent { at, from, destination: transmit.destination, bytes });
                }
            }
        }
        while let Some(event) = self.hosts[number].machine.poll_event() {
            if let Some(other) = self.number(event.source) {
                let present = &mut self.hosts[number].present;
                let _ = match event.news {
                    News::Left(_) => present.remove(&other),
                    News::Appeared | News::Changed | News::Repeated => present.insert(other),
                };
            }
            self.hosts[number].events.push((at, event));
        }
    }

    fn number(&self, address: SocketAddr) -> Option<usize> {
        let IpAddr::V4(ip) = address.ip() else { return None };
        let number = usize::try_from(ip.to_bits().checked_sub(FIRST_ADDRESS)?).ok()?;
        (number < self.hosts.len()).then_some(number)
    }

    fn fly(&mut self, to: usize, from: SocketAddr, bytes: &[u8]) {
        let lost = self.fraction() < self.loss;
        let at = self.now + self.delay.mul_f64(0.5 + self.fraction() / 2.0);
        self.count += 1;
        if !lost {
            self.flying.insert((at, self.count), Flying { to, from, bytes: bytes.to_vec() });
        }
    }

    /// Whether a machine believes another to be there.
    pub(crate) fn knows(&self, number: usize, other: usize) -> bool {
        self.hosts[number].present.contains(&other)
    }

    /// How many machines a machine believes to be there; those made up by attackers do not count.
    pub(crate) fn known(&self, number: usize) -> usize {
        self.hosts[number].present.len()
    }

    pub(crate) fn knows_all(&self, number: usize) -> bool {
        self.known(number) + 1 == self.hosts.iter().filter(|host| host.is_up).count()
    }

    pub(crate) fn all_know_all(&self) -> bool {
        (0..self.hosts.len()).filter(|number| self.hosts[*number].is_up).all(|number| self.knows_all(number))
    }

    /// How many datagrams were on the wire in a stretch of time.
    pub(crate) fn datagrams(&self, from: Duration, to: Duration) -> usize {
        self.log.iter().filter(|sent| sent.at >= from && sent.at < to).count()
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance
    }

    #[expect(clippy::cast_precision_loss, reason = "chance needs no more")]
    fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What machine `number` announces.
pub(crate) fn data(number: usize) -> Vec<u8> {
    format!("host {number}").into_bytes()
}

/// Where machine `number` speaks from.
pub(crate) fn address(number: usize) -> SocketAddr {
    let number = u32::try_from(number).expect("few machines");
    SocketAddr::new(IpAddr::from((FIRST_ADDRESS + number).to_be_bytes()), 5000)
}

/// A packet as text, to see in a failed assertion.
pub(crate) fn packet(sent: &Sent) -> Packet<'_> {
    Packet::decode(&sent.bytes).expect("machines send packets")
}

/// Some day in 2023.
const CLOCK_AT_THE_BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// 10.0.0.1
const FIRST_ADDRESS: u32 = 0x0a00_0001;
