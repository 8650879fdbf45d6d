use super::*;
use crate::protocol::stun::Message;
use crate::testing::{Link, Nat, Net, NodeId, Relay, RelayRules, Running};

mod life;
mod peers;
mod trust;

/// A laptop behind a NAT with a client, a server, and a peer on the internet.
struct World {
    net: Net,
    server: NodeId,
    relay: Running<Relay>,
    laptop: NodeId,
    client: Running<TurnClient>,
    peer_host: NodeId,
    peer: Running<Collector>,
    peer_address: SocketAddr,
}

impl World {
    fn new(rules: RelayRules) -> Self {
        Self::with_password(rules, "secret")
    }

    fn with_password(rules: RelayRules, password: &str) -> Self {
        Self::build(1, rules, password, Link::delay(Duration::from_millis(20)))
    }

    fn lossy(seed: u64, loss: f64) -> Self {
        let link = Link::delay(Duration::from_millis(20)).loss(loss);
        Self::build(seed, RelayRules::default(), "secret", link)
    }

    fn build(seed: u64, rules: RelayRules, password: &str, link: Link) -> Self {
        let mut net = Net::new(Seed::from(seed));
        let server = net.host(None, "203.0.113.20", Link::default());
        let relay = Relay::new(&mut net, server, TurnCredentials::new("user", "secret"), rules);
        // The NAT forgets a flow after half a minute, which the client must prevent.
        let nat = Nat { lifetime: Duration::from_secs(30), ..Nat::hard() };
        let nat = net.nat(None, "198.51.100.2", link, nat);
        let laptop = net.host(Some(nat), "192.168.1.11", Link::default());
        net.bind(laptop, 4000);
        let peer_host = net.host(None, "192.0.2.2", Link::default());
        net.bind(peer_host, 4000);
        let client = TurnClient::new(
            net.now(),
            "203.0.113.20:3478".parse().unwrap(),
            TurnLink::Datagrams,
            AddressFamily::V4,
            TurnCredentials::new("user", password),
            Seed::from(seed + 1),
        );
        let (relay, client) = (Running::new(relay), Running::new(client));
        let peer = Running::new(Collector::default());
        let peer_address = "192.0.2.2:4000".parse().unwrap();
        Self { net, server, relay, laptop, client, peer_host, peer, peer_address }
    }

    fn pass(&mut self, seconds: u64) {
        let programs: &mut [(NodeId, &mut dyn crate::testing::Program)] = &mut [
            (self.server, &mut self.relay),
            (self.laptop, &mut self.client),
            (self.peer_host, &mut self.peer),
        ];
        let until = self.net.now() + Duration::from_secs(seconds);
        while self.net.now() < until {
            let before = self.net.now();
            self.net.run(programs, until.saturating_duration_since(before));
            if self.net.now() == before {
                break;
            }
        }
    }

    fn allocated(&self) -> SocketAddr {
        match self.client.events()[0].1 {
            TurnEvent::Allocated { relayed, .. } => relayed,
            ref other => panic!("{other:?}"),
        }
    }

    /// What the peer received last: source and bytes.
    fn arrived(&self) -> &(SocketAddr, Vec<u8>) {
        &self.peer.events().last().expect("the peer has received something").1
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.net.send(self.peer_host, SocketIndex::MAIN, "203.0.113.20:49152".parse().unwrap(), bytes);
        self.pass(1);
    }
}

/// A client alone, whose server is the test.
struct Bench {
    client: TurnClient,
    now: Instant,
    last: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        Self::over(TurnLink::Datagrams)
    }

    fn over(link: TurnLink) -> Self {
        let now = crate::testing::epoch();
        let server = "203.0.113.20:3478".parse().unwrap();
        let credentials = TurnCredentials::new("user", "secret");
        let client = TurnClient::new(now, server, link, AddressFamily::V4, credentials, Seed::from(1));
        let mut bench = Self { client, now, last: Vec::new() };
        bench.drain();
        bench
    }

    fn challenged() -> Self {
        let mut bench = Self::new();
        let challenge = bench.answer(Class::Error, None, |builder| {
            builder
                .error_code(401, "")
                .attribute(attribute::REALM, b"realm")
                .attribute(attribute::NONCE, b"nonce")
        });
        assert_eq!(bench.receive(&challenge), TurnReceived::Handled);
        bench.drain();
        bench
    }

    fn allocated() -> Self {
        let mut bench = Self::challenged();
        let key = TurnCredentials::new("user", "secret").classic_key(b"realm");
        let answer = bench.answer(Class::Success, Some(&key), allocation);
        bench.receive(&answer);
        assert!(matches!(bench.client.poll_event(), Some(TurnEvent::Allocated { .. })));
        bench
    }

    /// An answer to the last request.
    fn answer(
        &self,
        class: Class,
        key: Option<&ring::hmac::Key>,
        add: impl FnOnce(MessageBuilder) -> MessageBuilder,
    ) -> Vec<u8> {
        let request = Message::decode(&self.last).unwrap();
        let builder = add(MessageBuilder::new(class, request.method(), request.transaction()));
        match key {
            Some(key) => builder.integrity(key).finish(),
            None => builder.finish(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> TurnReceived<'static> {
        let datagram = Datagram { socket: SocketIndex::MAIN, source: self.client.server(), bytes };
        match self.client.receive(self.now, datagram) {
            TurnReceived::Data { .. } => panic!("data"),
            TurnReceived::Handled => TurnReceived::Handled,
            TurnReceived::Ignored => TurnReceived::Ignored,
        }
    }

    /// Takes all that is to be sent; returns where the last of it goes.
    fn drain(&mut self) -> SocketAddr {
        let mut destination = self.client.server();
        while let Some(transmit) = self.client.poll_transmit() {
            destination = transmit.destination;
            self.last = transmit.bytes;
        }
        destination
    }
}

fn allocation(builder: MessageBuilder) -> MessageBuilder {
    builder
        .xor_address(attribute::XOR_RELAYED_ADDRESS, "203.0.113.20:50000".parse().unwrap())
        .attribute(attribute::LIFETIME, &[0, 0, 2, 88])
}

/// Keeps what arrives.
#[derive(Debug, Default)]
struct Collector(VecDeque<(SocketAddr, Vec<u8>)>);

impl Machine for Collector {
    type Event = (SocketAddr, Vec<u8>);

    fn handle_datagram(&mut self, _now: Instant, datagram: Datagram<'_>) {
        self.0.push_back((datagram.source, datagram.bytes.to_vec()));
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_event(&mut self) -> Option<Self::Event> {
        self.0.pop_front()
    }
}
