//! A laboratory with an introducer, and two services in it.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use crust::{
    Config, ConnectError, ConnectOptions, Lan, NamedEndpoint, Road, Scheme, Service, Stream, TurnServer,
};
use nat_lab::{Coturn, Lab, Link, Topology};

pub(crate) struct World {
    pub(crate) lab: Lab,
    introducer: Option<Service>,
    coturn: Option<Coturn>,
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
}

impl World {
    /// Two sites behind these NATs, with 20 ms each way to the middle of the internet.
    pub(crate) fn new(a: &str, b: &str) -> Self {
        let link = Link::delay(Duration::from_millis(20));
        Self::of(&Topology::pair(a, b).unwrap().links(link))
    }

    pub(crate) fn of(topology: &Topology) -> Self {
        let lab = topology.build().unwrap();
        let mut world = Self { lab, introducer: None, coturn: None, places: Vec::new() };
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
        let service = self.start("server", config);
        let places = service.controller.endpoints().unwrap();
        self.places = places.into_iter().map(NamedEndpoint::from).collect();
        self.introducer = Some(service);
    }

    /// With a relay, which everybody is told of from now on: over UDP, TCP and TLS.
    pub(crate) fn start_relay(&mut self) {
        self.coturn = Some(self.lab.coturn(&[]).unwrap());
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

    fn start(&self, host: &str, config: Config) -> Service {
        self.lab.node(host).enter(|| Service::new_from_config(config).unwrap())
    }

    /// A service that listens, known to the introducer.
    pub(crate) fn listening(&self, host: &str) -> Service {
        let config = Config::new().lan(Lan::Off).introducers(self.places.clone()).relays(self.relays());
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
        (host, client): (&str, &Service),
        (other, server): (&str, &Service),
        options: &ConnectOptions,
    ) -> Result<Met, ConnectError> {
        // Its addresses are those of the namespace in which it is asked.
        let contact = self.lab.node(other).enter(|| server.controller.contact().unwrap());
        thread::scope(|scope| {
            let echoing = scope.spawn(|| echo_once(server));
            let met = self.lab.node(host).enter(|| {
                let begun = Instant::now();
                let mut stream = client.controller.connect_with(contact, options)?;
                let up = begun.elapsed();
                stream.write_all(b"!").unwrap();
                stream.read_exact(&mut [0]).unwrap();
                let echo = begun.elapsed();
                let path = stream.path();
                Ok(Met { up, echo, road: path.kind.into(), scheme: path.scheme })
            });
            let echoed = echoing.join().unwrap();
            assert!(met.is_err() || echoed.is_some(), "the stream came out of accept");
            met
        })
    }
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
