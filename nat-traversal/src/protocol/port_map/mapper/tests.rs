use std::time::Duration;

use super::*;
use crate::protocol::port_map::PortProtocol;
use crate::protocol::{Seed, SocketIndex};
use crate::testing::{Link, Nat, Net, NodeId, Router, Running};

const UPNP_ROUTER: &str = "192.168.1.1";

#[test]
fn the_three_protocols_are_tried_in_order_and_the_search_of_upnp_beside_the_others() {
    // Which protocols the router knows, what is forwarded by, and when the asker knows it.
    let cases = [
        (true, true, PortMapMethod::Pcp, Duration::ZERO),
        (false, true, PortMapMethod::NatPmp, Duration::ZERO),
        (false, false, PortMapMethod::Upnp, Duration::from_secs(1)),
    ];
    for (speaks_pcp, speaks_nat_pmp, method, takes) in cases {
        let mut world = World::new(|router| {
            (router.speaks_pcp, router.speaks_nat_pmp) = (speaks_pcp, speaks_nat_pmp);
        });
        let start = world.net.now();
        let PortMapEvent::Mapped(mapping) = world.next_event() else { panic!("{method}") };
        assert_eq!((mapping.method, mapping.external), (method, "198.51.100.2:4000".parse().unwrap()));
        assert_eq!(world.net.now().duration_since(start), takes, "{method}");
        let searched = world.tasks.contains(&UpnpTask::Search);
        assert_eq!(searched, method == PortMapMethod::Upnp);
    }
}

#[test]
fn all_refusals_are_kept() {
    let mut world = World::new(|router| router.refuses = Some(2));
    world.upnp_refuses = true;
    let PortMapEvent::Failed(failures) = world.next_event() else { panic!() };
    let methods: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert_eq!(
        methods,
        [
            "PCP: 192.168.1.1 refuses: not authorized",
            "NAT-PMP: 192.168.1.1 refuses: not authorized",
            "UPnP: 192.168.1.1 refuses: 606",
        ]
    );
    assert_eq!(world.mapper.poll_timeout(), None);
}

#[test]
fn what_is_known_to_work_is_tried_first() {
    let mut world = World::new(|router| router.refuses = Some(2));
    world.begin(Some(UPNP_ROUTER), Some(PortMapMethod::Upnp));
    let PortMapEvent::Mapped(mapping) = world.next_event() else { panic!() };
    assert_eq!((mapping.method, world.net.trace().len()), (PortMapMethod::Upnp, 0));
}

#[test]
fn without_a_known_router_only_upnp_is_left() {
    let mut world = World::new(|_| {});
    world.begin(None, None);
    assert!(
        matches!(world.next_event(), PortMapEvent::Mapped(mapping) if mapping.method == PortMapMethod::Upnp)
    );
    world.begin(None, None);
    world.upnp_is_absent = true;
    let PortMapEvent::Failed(failures) = world.next_event() else { panic!() };
    assert!(matches!(failures[..], [PortMapFailure::NoRouter, PortMapFailure::NotFound { .. }]));
}

#[test]
fn a_forwarded_port_lets_strangers_in_and_a_released_one_does_not() {
    let mut world = World::new(|_| {});
    let PortMapEvent::Mapped(mapping) = world.next_event() else { panic!() };
    assert!(world.stranger_gets_in(mapping.external));
    world.mapper.release(world.net.now());
    assert_eq!(world.next_event(), PortMapEvent::Closed);
    assert!(!world.stranger_gets_in(mapping.external));
}

#[test]
fn a_mapping_of_upnp_is_made_again_every_few_minutes_and_removed_in_the_end() {
    let mut world = World::new(|router| router.is_silent = true);
    assert!(matches!(world.next_event(), PortMapEvent::Mapped(_)));
    world.run_for(Duration::from_secs(3601));
    let adds = world.tasks.iter().filter(|task| matches!(task, UpnpTask::Add { .. })).count();
    assert_eq!(adds, 1 + 12, "at once and every five minutes of an hour");
    world.mapper.release(world.net.now());
    assert_eq!(world.next_event(), PortMapEvent::Closed);
    assert_eq!(world.tasks.last(), Some(&UpnpTask::Remove { external_port: 4000 }));
}

#[test]
fn what_upnp_gives_after_the_release_is_given_back() {
    let mut world = World::new(|router| router.is_silent = true);
    world.holds_answers = true;
    world.run_for(Duration::from_secs(2));
    world.mapper.handle_upnp(world.net.now(), UpnpAnswer::Found(UPNP_ROUTER.parse().unwrap()));
    world.mapper.release(world.net.now());
    assert_eq!(world.drain(), None, "the question is under way");
    let external = "198.51.100.2:4711".parse().unwrap();
    world.mapper.handle_upnp(world.net.now(), UpnpAnswer::Added { external, lifetime: None });
    assert_eq!(world.drain(), None);
    assert_eq!(world.tasks.last(), Some(&UpnpTask::Remove { external_port: 4711 }));
    world.mapper.handle_upnp(world.net.now(), UpnpAnswer::Removed);
    assert_eq!(world.drain(), Some(PortMapEvent::Closed));
}

#[test]
fn an_answer_to_an_earlier_search_changes_nothing() {
    for answer in [UpnpAnswer::Found("192.168.1.66".parse().unwrap()), UpnpAnswer::NotFound("late".into())] {
        let mut world = World::new(|router| router.is_silent = true);
        assert!(matches!(world.next_event(), PortMapEvent::Mapped(_)));
        world.mapper.handle_upnp(world.net.now(), answer);
        world.mapper.release(world.net.now());
        assert_eq!(world.next_event(), PortMapEvent::Closed);
        assert_eq!(world.tasks.last(), Some(&UpnpTask::Remove { external_port: 4000 }));
    }
}

#[test]
fn a_lost_port_is_asked_for_again_with_ever_longer_pauses() {
    let mut world = World::new(|router| router.max_lifetime = Duration::from_secs(20));
    assert!(matches!(world.next_event(), PortMapEvent::Mapped(_)));
    world.router().is_silent = true;
    world.upnp_is_absent = true;
    assert!(matches!(world.next_event(), PortMapEvent::Lost(_)));
    let before = world.net.trace().len();
    world.run_for(Duration::from_secs(3600));
    assert!(
        world.net.trace().len() - before < 200,
        "{} packets in an hour",
        world.net.trace().len() - before
    );
    world.router().is_silent = false;
    assert!(matches!(world.next_event(), PortMapEvent::Mapped(_)));
}

/// A laptop behind a home router in the network in memory, and the same router's UPnP.
struct World {
    net: Net,
    home: NodeId,
    laptop: NodeId,
    mapper: PortMapper,
    tasks: Vec<UpnpTask>,
    upnp_refuses: bool,
    upnp_is_absent: bool,
    holds_answers: bool,
}

impl World {
    fn new(change: impl FnOnce(&mut Router)) -> Self {
        let mut net = Net::new(Seed::from(1));
        let home = net.nat(None, "198.51.100.2", Link::default(), Nat::easy());
        let laptop = net.host(Some(home), "192.168.1.11", Link::default());
        net.bind(laptop, 4000);
        net.bind(laptop, 5350);
        let mut router = Router::new(net.now(), "198.51.100.2".parse().unwrap());
        change(&mut router);
        net.add_router(home, UPNP_ROUTER, router);
        let mapper = mapper(net.now(), Some(UPNP_ROUTER), None);
        let (upnp_refuses, upnp_is_absent, holds_answers) = (false, false, false);
        Self { net, home, laptop, mapper, tasks: Vec::new(), upnp_refuses, upnp_is_absent, holds_answers }
    }

    fn begin(&mut self, router: Option<&str>, first: Option<PortMapMethod>) {
        self.mapper = mapper(self.net.now(), router, first);
    }

    fn router(&mut self) -> &mut Router {
        self.net.router(self.home).unwrap()
    }

    /// The next event that is no task, which are done at once.
    fn next_event(&mut self) -> PortMapEvent {
        for _ in 0..10_000 {
            if let Some(event) = self.drain() {
                return event;
            }
            self.step(Duration::from_secs(3600));
        }
        panic!("nothing happens");
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.net.now() + time;
        while self.net.now() < end {
            while self.drain().is_some() {}
            self.step(end.duration_since(self.net.now()));
        }
    }

    /// Lets the network run until the mapper has been woken.
    fn step(&mut self, patience: Duration) {
        let (now, due) = (self.net.now(), self.mapper.poll_timeout());
        let wait = due.map_or(patience, |due| due.saturating_duration_since(now).min(patience));
        let mut running = Running::new(WithoutEvents(&mut self.mapper));
        self.net.run(&mut [(self.laptop, &mut running)], wait);
        if self.net.now() == now && due.is_none_or(|due| due > now) {
            // Nothing can happen but that time passes.
            self.net.receive(self.laptop, wait);
        }
    }

    fn drain(&mut self) -> Option<PortMapEvent> {
        while let Some(event) = self.mapper.poll_event() {
            let PortMapEvent::Upnp(task) = event else { return Some(event) };
            self.tasks.push(task);
            if !self.holds_answers {
                let answer = self.answer(task);
                self.mapper.handle_upnp(self.net.now(), answer);
            }
        }
        None
    }

    fn answer(&self, task: UpnpTask) -> UpnpAnswer {
        match task {
            UpnpTask::Search if self.upnp_is_absent => UpnpAnswer::NotFound("nobody answered".into()),
            UpnpTask::Search => UpnpAnswer::Found(UPNP_ROUTER.parse().unwrap()),
            UpnpTask::Add { .. } if self.upnp_refuses => UpnpAnswer::Refused("606".into()),
            UpnpTask::Add { external_port, lifetime } => UpnpAnswer::Added {
                external: SocketAddr::new("198.51.100.2".parse().unwrap(), external_port),
                lifetime: Some(lifetime),
            },
            UpnpTask::Remove { .. } => UpnpAnswer::Removed,
        }
    }

    fn stranger_gets_in(&mut self, address: SocketAddr) -> bool {
        let stranger = self.net.host(None, "203.0.113.66", Link::default());
        self.net.bind(stranger, 1);
        self.net.send(stranger, SocketIndex::MAIN, address, b"knock");
        self.net.receive(self.laptop, Duration::from_secs(1)).is_some_and(|arrived| arrived.bytes == b"knock")
    }
}

fn mapper(now: Instant, router: Option<&str>, first: Option<PortMapMethod>) -> PortMapper {
    let request = PortMapRequest {
        protocol: PortProtocol::Udp,
        local: "192.168.1.11:4000".parse().unwrap(),
        lifetime: Duration::from_secs(7200),
    };
    PortMapper::new(now, router.map(|router| router.parse().unwrap()), 0, request, first, Seed::from(2))
}

/// Leaves the mapper's events to the test.
struct WithoutEvents<'a>(&'a mut PortMapper);

impl Machine for WithoutEvents<'_> {
    type Event = ();

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.0.handle_datagram(now, datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.0.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }
}
