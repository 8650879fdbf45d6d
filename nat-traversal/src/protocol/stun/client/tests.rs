use std::time::Duration;

use super::*;
use crate::protocol::StunServer;
use crate::protocol::stun::ServerAddresses;
use crate::testing::{Link, Nat, Net, NodeId, Running};

#[test]
fn every_server_is_asked_at_once_and_each_has_one_event() {
    let mut world = World::new(Link::delay(Duration::from_millis(20)));
    let dead: SocketAddr = "203.0.113.99:3478".parse().unwrap();
    let asked =
        world.ask(&["203.0.113.10:3478".parse().unwrap(), dead, "203.0.113.11:3478".parse().unwrap()]);
    let [first, second, third] = &asked[..] else { panic!("{asked:?}") };
    for (time, event) in [first, second] {
        assert_eq!(*time, Duration::from_millis(40), "one round trip");
        let StunEvent::Mapped { address, .. } = event else { panic!("{event:?}") };
        assert_eq!(address.to_string(), "198.51.100.2:4000");
    }
    assert_eq!(third.1, StunEvent::Failed { server: dead, failure: StunFailure::NoAnswer(7) });
}

#[test]
fn lost_requests_are_sent_again() {
    let mut world = World::new(Link::delay(Duration::from_millis(20)).loss(0.3));
    let events = world.ask(&["203.0.113.10:3478".parse().unwrap()]);
    assert!(matches!(events[0].1, StunEvent::Mapped { .. }), "{events:?}");
}

#[test]
fn an_answer_counts_only_from_the_server_and_for_the_transaction() {
    let now = crate::testing::epoch();
    let server: SocketAddr = "203.0.113.10:3478".parse().unwrap();
    let mut client = StunClient::new(now, &[server], Seed::from(1));
    client.handle_timeout(now);
    let request = client.poll_transmit().unwrap();
    let transaction = Message::decode(&request.bytes).unwrap().transaction();
    let answer = |transaction| {
        MessageBuilder::new(Class::Success, Method::BINDING, transaction)
            .mapped_address("192.0.2.66:66".parse().unwrap())
            .fingerprint()
    };
    let elsewhere: SocketAddr = "203.0.113.66:3478".parse().unwrap();
    for (source, transaction) in [(elsewhere, transaction), (server, TransactionId([0; 12]))] {
        let bytes = answer(transaction);
        client.handle_datagram(now, Datagram { socket: SocketIndex::MAIN, source, bytes: &bytes });
        assert_eq!(client.poll_event(), None);
    }
    let bytes = answer(transaction);
    let right = Datagram { socket: SocketIndex::MAIN, source: server, bytes: &bytes };
    client.handle_datagram(now, right);
    assert!(matches!(client.poll_event(), Some(StunEvent::Mapped { .. })));
    client.handle_datagram(now, right);
    assert_eq!(client.poll_event(), None, "an answer that comes twice counts once");
}

#[test]
fn a_refusal_is_told_as_such() {
    let now = crate::testing::epoch();
    let server: SocketAddr = "203.0.113.10:3478".parse().unwrap();
    let mut client = StunClient::new(now, &[server], Seed::from(1));
    client.handle_timeout(now);
    let transaction = Message::decode(&client.poll_transmit().unwrap().bytes).unwrap().transaction();
    let bytes =
        MessageBuilder::new(Class::Error, Method::BINDING, transaction).error_code(500, "no").finish();
    client.handle_datagram(now, Datagram { socket: SocketIndex::MAIN, source: server, bytes: &bytes });
    let failure = StunFailure::Refused(500);
    assert_eq!(client.poll_event(), Some(StunEvent::Failed { server, failure }));
}

/// Two servers on the internet and a laptop behind a home router.
struct World {
    net: Net,
    servers: [NodeId; 2],
    laptop: NodeId,
}

impl World {
    fn new(link: Link) -> Self {
        let mut net = Net::new(Seed::from(1));
        let servers = ["203.0.113.10", "203.0.113.11"].map(|address| {
            let server = net.host(None, address, Link::default());
            net.bind(server, 3478);
            server
        });
        let home = net.nat(None, "198.51.100.2", link, Nat::easy());
        let laptop = net.host(Some(home), "192.168.1.11", Link::default());
        net.bind(laptop, 4000);
        Self { net, servers, laptop }
    }

    fn ask(&mut self, servers: &[SocketAddr]) -> Vec<(Duration, StunEvent)> {
        let start = self.net.now();
        let mut client = Running::new(StunClient::new(start, servers, Seed::from(2)));
        let mut first = Running::new(StunServer::new(ServerAddresses::One));
        let mut second = Running::new(StunServer::new(ServerAddresses::One));
        let [at_first, at_second] = self.servers;
        let mut programs: [(NodeId, &mut dyn crate::testing::Program); 3] =
            [(self.laptop, &mut client), (at_first, &mut first), (at_second, &mut second)];
        self.net.run(&mut programs, Duration::from_secs(30));
        client.events().iter().map(|(time, event)| (time.duration_since(start), event.clone())).collect()
    }
}
