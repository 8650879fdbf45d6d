//! A laboratory with an introducer, and two services in it.

use std::{
    fmt,
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use crust::{
    Config, ConnectError, ConnectOptions, Lan, NamedEndpoint, PathKind, Road, Scheme, Service, Stream,
    TurnServer,
};
use nat_lab::{Coturn, Lab, Link, Topology};

pub(crate) struct World {
    pub(crate) lab: Lab,
    introducer: Option<Service>,
    coturn: Option<Coturn>,
    lends: bool,
    dead_after: Option<Duration>,
    pub(crate) places: Vec<NamedEndpoint>,
}

/// What came of a dial.
#[derive(Debug)]
pub(crate) struct Met {
    /// Until connect returned.
    pub(crate) up: Duration,
    /// Until the first byte had come back.
    pub(crate) echo: Duration,
    pub(crate) road: Road,
    pub(crate) scheme: Scheme,
    /// Until it went straight, if it did within the time that was asked for.
    pub(crate) direct: Option<Duration>,
}

/// Packets, and their bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packets {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
}

/// What went over the relay, headers of IP and UDP included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carried {
    /// What has a long header of QUIC.
    pub(crate) handshake: Packets,
    /// What QUIC said later.
    pub(crate) rest: Packets,
    /// Of punches and paths.
    pub(crate) checks: Packets,
}

impl Carried {
    pub(crate) fn bytes(&self) -> u64 {
        self.handshake.bytes + self.rest.bytes + self.checks.bytes
    }
}

impl fmt::Display for Packets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} in {}", self.bytes, self.number)
    }
}

impl World {
    /// Two sites behind these NATs, with 20 ms each way to the middle of the internet.
    pub(crate) fn new(a: &str, b: &str) -> Self {
        let link = Link::delay(Duration::from_millis(20));
        Self::of(&Topology::pair(a, b).unwrap().links(link))
    }

    pub(crate) fn of(topology: &Topology) -> Self {
        let lab = topology.build().unwrap();
        let mut world =
            Self { lab, introducer: None, coturn: None, lends: false, dead_after: None, places: Vec::new() };
        world.start_introducer();
        world
    }

    pub(crate) fn start_introducer(&mut self) {
        // Its key is the same when it comes back.
        let identity = crust::Identity::from_seed([1; 32]);
        // By TCP where strict firewalls let everybody go.
        let places = ["quic://203.0.113.10:4433", "tcp://203.0.113.11:443"];
        let config = Config::new()
            .identity(identity)
            .lan(Lan::Off)
            .listen(places.map(|place| place.parse().unwrap()))
            .introduce(true);
        let config = if self.lends { lending(config) } else { config };
        let service = self.start("server", config);
        let places = service.controller.endpoints().unwrap();
        self.places = places.into_iter().map(NamedEndpoint::from).collect();
        self.introducer = Some(service);
    }

    /// With a relay, which everybody is told of from now on: over UDP, TCP and TLS.
    pub(crate) fn start_relay(&mut self) {
        let [first, last] = RELAY_PORTS;
        let ports = [format!("--min-port={first}"), format!("--max-port={last}")];
        self.coturn = Some(self.lab.coturn(&ports.each_ref().map(String::as_str)).unwrap());
    }

    /// Counts from now on what peers send to the relay and get from it, headers of IP and UDP included; see [`carried`](Self::carried).
    pub(crate) fn count_relayed(&self) {
        let [first, last] = RELAY_PORTS;
        let mut rules = format!(
            "add table inet {COUNTING}; \
             add chain inet {COUNTING} in {{ type filter hook input priority 0; }}; \
             add chain inet {COUNTING} out {{ type filter hook output priority 0; }}"
        );
        // The first two bits of a datagram tell a long header of QUIC, with which handshakes are made, from a short one, and both from STUN.
        for (kind, bits) in KINDS.iter().zip([3, 1, 0]) {
            let counted = format!("@th,64,2 {bits} counter name {kind}");
            rules += &format!(
                "; add counter inet {COUNTING} {kind}; \
                 add rule inet {COUNTING} in udp dport {first}-{last} {counted}; \
                 add rule inet {COUNTING} out udp sport {first}-{last} {counted}"
            );
        }
        let status = self.lab.node("server").command("nft").arg(rules).status().unwrap();
        assert!(status.success(), "nft counts");
    }

    /// What the relay has carried since, both ways: at its addresses, where each packet passes once.
    pub(crate) fn carried(&self) -> Carried {
        let [handshake, rest, checks] = KINDS.map(|kind| {
            let mut list = self.lab.node("server").command("nft");
            let told = list.args(["list", "counter", "inet", COUNTING, kind]).output().unwrap();
            let told = String::from_utf8(told.stdout).unwrap();
            let after = |word: &str| {
                let mut words = told.split_whitespace().skip_while(|one| *one != word).skip(1);
                words.next().expect("the counter is told").parse().unwrap()
            };
            Packets { number: after("packets"), bytes: after("bytes") }
        });
        Carried { handshake, rest, checks }
    }

    /// Waits until the relay lends no address any more, as services give theirs back in the background.
    pub(crate) fn wait_until_nothing_is_relayed(&self) {
        let lent = || {
            let told = self.lab.node("server").command("ss").args(["-H", "-u", "-a", "-n"]).output().unwrap();
            let told = String::from_utf8(told.stdout).unwrap();
            let ports = told
                .lines()
                .filter_map(|line| line.split_whitespace().nth(3)?.rsplit(':').next()?.parse().ok());
            ports.filter(|port: &u16| (RELAY_PORTS[0]..=RELAY_PORTS[1]).contains(port)).count()
        };
        let until = soon();
        while lent() > 0 {
            assert!(Instant::now() < until, "{} addresses are lent", lent());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The relay dies without a word.
    pub(crate) fn stop_relay(&mut self) {
        self.coturn = None;
    }

    /// Has the introducer lend a relay of its own to those who are attached.
    pub(crate) fn lend_another_relay(&mut self) {
        self.lends = true;
        self.stop_introducer();
        self.start_introducer();
    }

    fn relays(&self) -> Vec<TurnServer> {
        let Some(coturn) = &self.coturn else { return Vec::new() };
        let ca = coturn.certificate.display();
        let at = |text: &str| {
            let server: TurnServer = text.parse().unwrap();
            server.with_credentials(Coturn::USER, Coturn::PASSWORD)
        };
        vec![at("turn:203.0.113.10"), at(&format!("turns:203.0.113.10:443?ca={ca}"))]
    }

    pub(crate) fn stop_introducer(&mut self) {
        self.introducer = None;
    }

    /// The same where services count a peer as lost after so much silence.
    pub(crate) fn dead_after(self, silence: Duration) -> Self {
        Self { dead_after: Some(silence), ..self }
    }

    fn start(&self, host: &str, config: Config) -> Service {
        let config = match self.dead_after {
            Some(silence) => config.dead_after(silence),
            None => config,
        };
        self.lab.node(host).enter(|| Service::new_from_config(config).unwrap())
    }

    /// A service that listens, known to the introducer.
    pub(crate) fn listening(&self, host: &str) -> Service {
        self.attached(host, Config::new().relays(self.relays()))
    }

    /// The same, which knows of no relay.
    pub(crate) fn without_relay(&self, host: &str) -> Service {
        self.attached(host, Config::new())
    }

    fn attached(&self, host: &str, config: Config) -> Service {
        let config = config.lan(Lan::Off).introducers(self.places.clone());
        let service = self.start(host, config);
        assert!(service.controller.wait_attached(soon()), "{host} is attached");
        service
    }

    /// One that only dials, and knows nothing but what contacts say.
    pub(crate) fn dialling(&self, host: &str) -> Service {
        self.start(host, Config::new().lan(Lan::Off).listen([]).relays(self.relays()))
    }

    /// The same, with a memory on disk.
    pub(crate) fn remembering(&self, host: &str, cache: &std::path::Path) -> Service {
        self.start(host, Config::new().lan(Lan::Off).listen([]).relays(self.relays()).cache(cache))
    }

    /// Dials one from the other, and has a byte sent back.
    pub(crate) fn meet(
        &self,
        dialler: (&str, &Service),
        peer: (&str, &Service),
        options: &ConnectOptions,
    ) -> Result<Met, ConnectError> {
        self.meet_until_direct(dialler, peer, options, Duration::ZERO)
    }

    /// The same, and waits until the stream goes straight, or so long after the call.
    pub(crate) fn meet_until_direct(
        &self,
        (host, client): (&str, &Service),
        (other, server): (&str, &Service),
        options: &ConnectOptions,
        wait: Duration,
    ) -> Result<Met, ConnectError> {
        // Its addresses are those of the namespace in which it is asked.
        let contact = self.lab.node(other).enter(|| server.controller.contact().unwrap());
        thread::scope(|scope| {
            let echoing = scope.spawn(|| echo_once(server));
            let met = self.lab.node(host).enter(|| {
                let begun = Instant::now();
                let mut stream = client.controller.connect_with(contact, options)?;
                let up = begun.elapsed();
                let begun_on = stream.path();
                stream.write_all(b"!").unwrap();
                stream.read_exact(&mut [0]).unwrap();
                let echo = begun.elapsed();
                // As it began, not as it is after the echo.
                let (road, scheme) = (begun_on.kind.into(), begun_on.scheme);
                let mut path = begun_on;
                while path.kind == PathKind::Relayed
                    && let Ok(next) = stream.wait_path_change(&path, begun + wait)
                {
                    path = next;
                }
                let direct = match (road, path.kind) {
                    (_, PathKind::Relayed) => None,
                    (Road::Relayed, _) => Some(begun.elapsed()),
                    _ => Some(up),
                };
                Ok(Met { up, echo, road, scheme, direct })
            });
            let echoed = echoing.join().unwrap();
            assert!(met.is_err() || echoed.is_some(), "the stream came out of accept");
            met
        })
    }
}

fn lending(config: Config) -> Config {
    // What is documented for examples is not public, so that a relay refuses it.
    let everywhere = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"];
    config.relay(true).relay_port(3500).relay_allow(everywhere.map(|network| network.parse().unwrap()))
}

fn echo_once(server: &Service) -> Option<Stream> {
    let mut stream = server.acceptor.accept_deadline(Instant::now() + Duration::from_secs(20)).ok()?;
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    stream.write_all(&byte).ok()?;
    // Its end must not overtake the byte.
    let _ = stream.read(&mut byte);
    Some(stream)
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Where the relay has its addresses: ports that the system gives to nobody else.
const RELAY_PORTS: [u16; 2] = [61_000, 64_999];
const COUNTING: &str = "relayed";
const KINDS: [&str; 3] = ["handshake", "rest", "checks"];
