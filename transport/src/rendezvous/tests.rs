use std::thread;

use nat_traversal::PortRule;

use super::*;
use crate::{Identity, Listener, TransportConfig, protocol::offer::Hole};

/// Two meet by that hole only, of which each has learned one more address before it says anything.
fn meet_by(hole: Hole) {
    let sides = [0, 1].map(|_| {
        let transport = Transport::new(Identity::generate(), TransportConfig::default()).unwrap();
        let listener = Listener::bind(&transport, "quic://127.0.0.1:0").unwrap();
        let options = RendezvousOptions::new().udp(hole.is_udp()).tcp(!hole.is_udp()).listeners(false);
        let rendezvous = Rendezvous::open(&transport, &options).unwrap();
        let channel = rendezvous.channel();
        // Whoever asks servers makes an offer with each answer, whether the peer can be told yet or not.
        drop(channel.offer());
        // Nobody is there.
        let seen = MappedSocketAddr::reflexive("127.0.0.2:9".parse().unwrap(), PortRule::Stable);
        rendezvous.half.mapped(hole, vec![seen], None);
        let offer = channel.complete();
        assert!(offer.offer.endpoints(hole).contains(&seen));
        (transport, listener, rendezvous, offer)
    });
    let options = ConnectOptions::new().timeout(Duration::from_secs(30));
    let [(_one, _one_listens, first, first_offer), (_other, _other_listens, second, second_offer)] = sides;
    thread::scope(|scope| {
        let other = scope.spawn(|| second.connect(&first_offer, &options).unwrap());
        let stream = first.connect(&second_offer, &options).unwrap();
        let scheme = if hole.is_udp() { Scheme::Quic } else { Scheme::Tcp };
        assert_eq!([stream.path().scheme, other.join().unwrap().path().scheme], [scheme; 2]);
    });
}

#[test]
fn what_was_learned_before_the_first_word_to_the_peer_does_not_keep_the_two_apart() {
    meet_by(Hole::UdpV4);
    meet_by(Hole::TcpV4);
}

#[test]
fn udp_is_silent_once_a_server_has_answered_over_tcp_alone() {
    let transport = Transport::new(Identity::generate(), TransportConfig::default()).unwrap();
    let _listener = Listener::bind(&transport, "quic://127.0.0.1:0").unwrap();
    let seen = || vec![MappedSocketAddr::reflexive("127.0.0.2:9".parse().unwrap(), PortRule::Stable)];
    let open = |udp| Rendezvous::open(&transport, &RendezvousOptions::new().udp(udp)).unwrap();
    let rendezvous = open(true);
    assert!(!rendezvous.udp_is_silent(), "nobody has been asked");
    rendezvous.half.mapped(Hole::TcpV4, seen(), None);
    assert!(rendezvous.udp_is_silent());
    rendezvous.half.mapped(Hole::UdpV4, seen(), None);
    assert!(!rendezvous.udp_is_silent(), "it was slow");
    let rendezvous = open(false);
    rendezvous.half.mapped(Hole::TcpV4, seen(), None);
    assert!(!rendezvous.udp_is_silent(), "it was not asked by UDP");
}
