use std::time::Duration;

use super::*;
use crate::protocol::port_map::PortProtocol;
use crate::testing::{Router, epoch};

const METHODS: [PortMapMethod; 2] = [PortMapMethod::Pcp, PortMapMethod::NatPmp];

#[test]
fn a_port_is_opened_renewed_at_half_of_its_life_and_given_back() {
    for method in METHODS {
        let mut world = World::new(method);
        world.run_for(Duration::ZERO);
        let [ClientEvent::Mapped(mapping)] = world.events[..] else { panic!("{:?}", world.events) };
        assert_eq!(mapping.external, "198.51.100.2:4000".parse().unwrap());
        assert_eq!((mapping.method, mapping.lifetime), (method, Some(Duration::from_secs(7200))));

        // Six hours later it is still there, and the outside address has not been told again.
        world.run_for(Duration::from_secs(6 * 3600));
        assert_eq!(world.router.forwardings(world.now).len(), 1, "{method}");
        assert_eq!(world.events.len(), 1);

        world.client.release(world.now);
        world.run_for(Duration::ZERO);
        assert_eq!(
            (world.router.forwardings(world.now).len(), world.events.last()),
            (0, Some(&ClientEvent::Closed))
        );
        assert_eq!(world.client.poll_timeout(), None);
    }
}

#[test]
fn a_firewall_for_ipv6_is_opened_by_pcp() {
    let now = epoch();
    let [server, local]: [SocketAddr; 2] =
        ["[fe80::1%7]:5351", "[2001:db8::11]:4000"].map(|at| at.parse().unwrap());
    let request = PortMapRequest { protocol: PortProtocol::Tcp, local, lifetime: Duration::from_secs(7200) };
    let mut client = PortMapClient::new(now, PortMapMethod::Pcp, server, request, Seed::from(1));
    // Nothing is translated: the outside address is the inside one.
    let mut router = Router::new(now, local.ip());
    client.handle_timeout(now);
    let asked = client.poll_transmit().unwrap();
    assert_eq!(asked.destination, server, "with the number of its link");
    router.handle_datagram(now, Datagram { socket: SocketIndex::MAIN, source: local, bytes: &asked.bytes });
    let answer = router.poll_transmit().unwrap();
    // The system may tell the source with another scope.
    let source = "[fe80::1]:5351".parse().unwrap();
    client.handle_datagram(now, Datagram { socket: SocketIndex::MAIN, source, bytes: &answer.bytes });
    let Some(ClientEvent::Mapped(mapping)) = client.poll_event() else { panic!() };
    assert_eq!(mapping.external, local);
}

#[test]
fn a_restart_that_is_announced_is_mended_within_a_second() {
    for method in METHODS {
        let mut world = World::new(method);
        world.run_for(Duration::from_secs(100));
        world.router.restart(world.now, true);
        world.run_for(MIN_PAUSE);
        assert_eq!(world.router.forwardings(world.now).len(), 1, "{method}");
    }
}

#[test]
fn a_restart_whose_announcement_is_lost_is_mended_within_a_minute_or_so() {
    for method in METHODS {
        let mut world = World::new(method);
        world.run_for(Duration::from_secs(100));
        world.router.restart(world.now, false);
        world.run_for(CHECK_PERIOD + MIN_PAUSE);
        assert_eq!(world.router.forwardings(world.now).len(), 1, "{method}");
    }
}

#[test]
fn a_router_that_announces_itself_seconds_before_it_answers_is_asked_until_it_does() {
    for method in METHODS {
        let mut world = World::new(method);
        world.run_for(Duration::from_secs(100));
        world.router.restart(world.now, true);
        // NAT-PMP's clients hear of it by PCP too.
        world.router.is_silent = true;
        world.run_for(Duration::from_secs(5));
        world.router.is_silent = false;
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.router.forwardings(world.now).len(), 1, "{method}");
    }
}

#[test]
fn an_announcement_of_a_router_that_has_not_restarted_costs_nothing() {
    let mut world = World::new(PortMapMethod::Pcp);
    world.run_for(Duration::from_secs(10));
    let sent = world.sent;
    for _ in 0..100 {
        let response = pcp::Response {
            result: pcp::ResultCode::SUCCESS,
            lifetime_s: 0,
            epoch_s: 12,
            opcode: Opcode::Announce,
        };
        world.hand(PortMapClient::ANNOUNCEMENTS, world.server, &response.encode());
    }
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.sent, sent);
}

#[test]
fn what_the_router_answers_to_another_port_saves_the_question_for_its_clock() {
    for method in METHODS {
        let mut world = World::new(method);
        // A router that has been running for a while.
        world.now += Duration::from_secs(5);
        world.run_for(Duration::ZERO);
        let sent = world.sent;
        // The other port's client asks every fifty seconds.
        for _ in 0..20 {
            world.run_for(Duration::from_secs(50));
            let answer = world.clock();
            world.hand(PortMapClient::SIBLINGS, world.server, &answer);
        }
        assert_eq!(world.sent, sent, "{method}");

        // And it is how both learn of a restart.
        world.router.restart(world.now, false);
        let answer = world.clock();
        world.hand(PortMapClient::SIBLINGS, world.server, &answer);
        world.run_for(MIN_PAUSE);
        assert_eq!(world.router.forwardings(world.now).len(), 1, "{method}");
        // Strangers are not believed.
        let stranger = "192.168.1.99:5351".parse().unwrap();
        let sent = world.sent;
        world.hand(PortMapClient::SIBLINGS, stranger, &answer);
        world.run_for(MIN_PAUSE * 2);
        assert_eq!(world.sent, sent, "{method}");
    }
}

#[test]
fn forged_announcements_cost_one_request_a_second_at_most() {
    let mut world = World::new(PortMapMethod::Pcp);
    for second in 0..20 {
        world.run_for(Duration::from_millis(500));
        let opcode = Opcode::Announce;
        let epoch_s = if second % 2 == 0 { 0 } else { 1 << 30 };
        let response = pcp::Response { result: pcp::ResultCode::SUCCESS, lifetime_s: 0, epoch_s, opcode };
        world.hand(PortMapClient::ANNOUNCEMENTS, world.server, &response.encode());
    }
    assert!(world.sent <= 24, "{} requests in ten seconds", world.sent);
}

#[test]
fn refusals_say_why_and_silence_ends_after_half_a_second() {
    for method in METHODS {
        let mut world = World::new(method);
        world.router.refuses = Some(2);
        world.run_for(Duration::ZERO);
        let refusal =
            PortMapFailure::Refused { method, router: world.server.ip(), reason: "not authorized".into() };
        assert_eq!(world.events, [ClientEvent::Failed(refusal)]);

        let mut world = World::new(method);
        world.router.is_silent = true;
        let start = world.now;
        world.run_until_event();
        let silent = PortMapFailure::Silent { method, router: world.server.ip() };
        assert_eq!(world.events, [ClientEvent::Failed(silent)]);
        assert_eq!((world.now.duration_since(start), world.sent % 2), (Duration::from_millis(500), 0));
    }
}

#[test]
fn a_router_that_falls_silent_is_tried_until_the_mapping_has_ended() {
    let mut world = World::new(PortMapMethod::Pcp);
    world.run_for(Duration::ZERO);
    world.router.is_silent = true;
    let start = world.now;
    world.run_until_event();
    assert!(matches!(world.events[1], ClientEvent::Lost(PortMapFailure::Silent { .. })));
    let took = world.now.duration_since(start);
    assert!(took >= Duration::from_secs(7200) && took < Duration::from_secs(7205), "{took:?}");
    assert!(world.sent < 200, "{} requests", world.sent);
}

#[test]
fn a_router_of_the_other_version_is_left_at_once() {
    let mut world = World::new(PortMapMethod::Pcp);
    world.router.speaks_pcp = false;
    world.run_for(Duration::ZERO);
    let [ClientEvent::Failed(PortMapFailure::Refused { reason, .. })] = &world.events[..] else { panic!() };
    assert_eq!(reason, "it speaks another version");
}

#[test]
fn answers_of_others_or_to_others_are_no_answers() {
    let mut world = World::new(PortMapMethod::Pcp);
    world.client.handle_timeout(world.now);
    let request = world.client.poll_transmit().unwrap().bytes;
    let map = pcp::MapRequest::decode(&request).unwrap();
    let answer = |nonce, port| {
        let external = "198.51.100.66:66".parse().unwrap();
        let opcode = Opcode::Map { nonce, protocol: 17, internal_port: port, external };
        pcp::Response { result: pcp::ResultCode::SUCCESS, lifetime_s: 60, epoch_s: 1, opcode }.encode()
    };
    let stranger = "192.168.1.66:5351".parse().unwrap();
    let other_port = SocketAddr::new(world.server.ip(), 5352);
    world.hand(SocketIndex::MAIN, stranger, &answer(map.nonce, 4000));
    world.hand(SocketIndex::MAIN, other_port, &answer(map.nonce, 4000));
    world.hand(SocketIndex::MAIN, world.server, &answer(Nonce([0; 12]), 4000));
    world.hand(SocketIndex::MAIN, world.server, &answer(map.nonce, 4001));
    world.hand(PortMapClient::ANNOUNCEMENTS, world.server, &answer(map.nonce, 4000));
    assert_eq!(world.client.poll_event(), None);
    world.hand(SocketIndex::MAIN, world.server, &answer(map.nonce, 4000));
    assert!(world.client.poll_event().is_some());
}

#[test]
fn an_absurd_lifetime_is_neither_believed_nor_hammered_at() {
    for (granted, most) in [(1_u32, 25), (u32::MAX, 4)] {
        let mut world = World::new(PortMapMethod::Pcp);
        world.client.handle_timeout(world.now);
        let request = world.client.poll_transmit().unwrap().bytes;
        let map = pcp::MapRequest::decode(&request).unwrap();
        let external = "198.51.100.2:4000".parse().unwrap();
        let opcode = Opcode::Map { nonce: map.nonce, protocol: 17, internal_port: 4000, external };
        let response =
            pcp::Response { result: pcp::ResultCode::SUCCESS, lifetime_s: granted, epoch_s: 0, opcode };
        world.hand(SocketIndex::MAIN, world.server, &response.encode());
        assert!(world.client.mapping.unwrap().1 <= world.now + MAX_LIFETIME);
        world.router.max_lifetime = Duration::from_secs(1);
        world.run_for(Duration::from_secs(10));
        assert!(world.sent <= most, "{} requests", world.sent);
    }
}

/// A client and its router on one link without delay.
struct World {
    now: Instant,
    client: PortMapClient,
    router: Router,
    server: SocketAddr,
    events: Vec<ClientEvent>,
    sent: u32,
}

impl World {
    fn new(method: PortMapMethod) -> Self {
        let now = epoch();
        let server = "192.168.1.1:5351".parse().unwrap();
        let request = PortMapRequest {
            protocol: PortProtocol::Udp,
            local: "192.168.1.11:4000".parse().unwrap(),
            lifetime: Duration::from_secs(7200),
        };
        let client = PortMapClient::new(now, method, server, request, Seed::from(1));
        let router = Router::new(now, "198.51.100.2".parse().unwrap());
        Self { now, client, router, server, events: Vec::new(), sent: 0 }
    }

    fn hand(&mut self, socket: SocketIndex, source: SocketAddr, bytes: &[u8]) {
        self.client.handle_datagram(self.now, Datagram { socket, source, bytes });
    }

    /// What the router answers to another client of this host.
    fn clock(&mut self) -> Vec<u8> {
        let source: SocketAddr = "192.168.1.11:50001".parse().unwrap();
        let request = match self.client.method() {
            PortMapMethod::Pcp => pcp::announce_request(source.ip()),
            _ => nat_pmp::Request::Address.encode(),
        };
        let datagram = Datagram { socket: SocketIndex::MAIN, source, bytes: &request };
        self.router.handle_datagram(self.now, datagram);
        self.router.poll_transmit().unwrap().bytes
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            match self.client.poll_timeout() {
                Some(due) if due <= end => self.wake(due),
                _ => break,
            }
        }
        self.now = end;
        self.exchange();
    }

    fn run_until_event(&mut self) {
        let before = self.events.len();
        while self.events.len() == before {
            self.exchange();
            if let Some(due) = self.client.poll_timeout() {
                self.wake(due);
            }
            self.exchange();
        }
    }

    fn wake(&mut self, due: Instant) {
        self.now = self.now.max(due);
        self.client.handle_timeout(self.now);
    }

    fn exchange(&mut self) {
        let source = "192.168.1.11:50000".parse().unwrap();
        loop {
            let before = self.sent;
            while let Some(transmit) = self.client.poll_transmit() {
                self.sent += 1;
                let datagram = Datagram { socket: SocketIndex::MAIN, source, bytes: &transmit.bytes };
                self.router.handle_datagram(self.now, datagram);
            }
            while let Some(answer) = self.router.poll_transmit() {
                let to_all = answer.destination.ip().is_multicast();
                let socket = if to_all { PortMapClient::ANNOUNCEMENTS } else { SocketIndex::MAIN };
                self.hand(socket, self.server, &answer.bytes);
            }
            while let Some(event) = self.client.poll_event() {
                self.events.push(event);
            }
            if self.sent == before {
                return;
            }
        }
    }
}
