use std::time::{Duration, Instant};

use crust_examples::protocol::kv::{ArcRef, AuthMessage, Challenge, Claim, Message};

use super::{Node, in_each_configuration};
use crate::puppet::{Puppet, greater_than, less_than};

in_each_configuration!(a_recorded_exchange_opens_no_door, who_answers_for_another_is_refused);

/// Three messages are recorded, and then said again over other streams: each alone and all, by the same one and by another. Tells
/// how long the node remembered something of it afterwards.
pub(super) fn a_recorded_exchange_opens_no_door(configuration: &[&str]) -> Duration {
    let mut worst = Duration::ZERO;
    let mut node = Node::start(configuration);
    for begins in [true, false] {
        let endpoint = node.endpoint.clone();
        let identity = || if begins { less_than(&[&endpoint]) } else { greater_than(&endpoint) };
        let mut honest = Puppet::connect(identity(), &endpoint);
        let recorded = honest.prove();
        node.wait_for_peers(1);
        let (mut refused, other) = (node.count("refused_peers"), Puppet::connect(identity(), &endpoint));
        for replayed in [&recorded[..1], &recorded[1..2], &recorded[2..], &recorded[..]] {
            for mut replaying in [honest.again(&endpoint), other.again(&endpoint)] {
                // The node may cut the stream before it has heard all.
                replayed.iter().for_each(|message| replaying.say_if_it_goes(message));
                while replaying.hear().is_some() {}
                refused += 1;
                node.wait_for_count("refused_peers", refused);
                assert_eq!(node.count("online"), 0, "the first stream was replaced, and none else is let in");
            }
        }
        drop((honest, other));
        let gone = Instant::now();
        for state in ["unproven", "challenges", "links"] {
            node.wait_for_count(state, 0);
        }
        worst = worst.max(gone.elapsed());
        assert!(node.peers().is_empty());
        assert_eq!(node.ask("keep name 1"), "name is kept here");
    }
    worst
}

/// Mallory asks one node what another asks her, and hands on its answer.
pub(super) fn who_answers_for_another_is_refused(configuration: &[&str]) {
    let (mut a, mut b) = (Node::start(configuration), Node::start(configuration));
    let mut with_b = Puppet::connect(less_than(&[&a.endpoint, &b.endpoint]), &b.endpoint);
    let mut with_a = with_b.again(&a.endpoint);
    let asked = ask(&mut with_b, &b.endpoint, [1; 32]).0;
    let (_, answer) = ask(&mut with_a, &a.endpoint, asked);
    with_b.say(&Message::<ArcRef>::Auth(AuthMessage::Done { other: asked, signature: answer }).to_bytes());
    assert_eq!(with_b.hear(), None, "she is sent away");
    assert!(
        b.complaint("is sent away").contains("the signature is not of who it says it is over this stream")
    );
    assert_eq!([b.count("online"), b.count("proved"), b.count("refused_peers")], [0, 0, 1]);
    assert!(b.peers().is_empty() && a.peers().is_empty());
}

/// Begins with a challenge of its choice; gives the other challenge and the signature that it is answered with.
fn ask(puppet: &mut Puppet, endpoint: &str, challenge: Challenge) -> (Challenge, Vec<u8>) {
    let claim = Claim { key: puppet.key(), contact: puppet.contact(), neighbour: true };
    let other = endpoint.parse::<crust::Endpoint>().unwrap().public_key();
    // As `auth.rs` says: which message, whether a neighbour, both keys, the sender's, both challenges, the binding, the contact.
    let signed = [
        &[1, 1][..],
        puppet.key().as_bytes(),
        other.as_bytes(),
        puppet.key().as_bytes(),
        &challenge,
        &[0; 32],
        &puppet.binding(),
        claim.contact.as_bytes(),
    ]
    .concat();
    let signature = puppet.sign("crust examples: kv authentication", &signed).to_vec();
    puppet.say(&Message::<ArcRef>::Auth(AuthMessage::Ping { claim, challenge, signature }).to_bytes());
    let heard = puppet.hear().expect("whoever asks properly is answered");
    match Message::<ArcRef>::from_bytes(&heard) {
        Ok(Message::Auth(AuthMessage::Pong { other, signature, .. })) => (other, signature),
        other => panic!("{other:?}"),
    }
}
