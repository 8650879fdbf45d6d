use super::*;
use crate::protocol::{
    kv::auth::{PURPOSE, Role, Transcript},
    mesh::LinkId,
};

/// Gates at the ends of streams. What one sends is kept until the test carries it.
struct Ends<R: Reference> {
    now: Instant,
    gates: Vec<Gate<R>>,
    out: Vec<Vec<Item<R>>>,
}

/// In the order of their keys: who has the smaller one begins.
const A: usize = 0;
const MALLORY: usize = 1;
const B: usize = 2;
const LIFETIME: Duration = Duration::from_secs(3);

impl<R: Reference> Ends<R> {
    fn new() -> (Self, Vec<usize>) {
        let mut places: Vec<usize> = (0..3).collect();
        places.sort_by_key(|place| key(*place));
        let gates = places.iter().map(|place| gate(*place, None)).collect();
        (Self { now: Instant::now(), gates, out: vec![Vec::new(), Vec::new(), Vec::new()] }, places)
    }

    fn give(&mut self, at: usize, input: GateInput) {
        self.gates[at].handle(self.now, input, &mut self.out[at]);
    }

    /// A stream between two, with what only they know.
    fn join(&mut self, places: &[usize], one: usize, other: usize, number: u64) {
        for (at, peer) in [(one, other), (other, one)] {
            let (peer, link) = (key(places[peer]), LinkId::from(number));
            self.give(at, GateInput::Up { peer, link, binding: [number as u8; 32], neighbour: true });
        }
    }

    /// The next message that it has sent to this peer.
    fn sent(&mut self, at: usize, to: PublicKey) -> Option<Vec<u8>> {
        let place = self.out[at].iter().position(
            |item| matches!(item, Item::Network(NetworkOutput::Send { to: other, .. }) if *other == to),
        )?;
        match self.out[at].remove(place) {
            Item::Network(NetworkOutput::Send { bytes, .. }) => Some(bytes),
            _ => None,
        }
    }

    fn receive(&mut self, at: usize, peer: PublicKey, number: u64, bytes: Vec<u8>) {
        self.give(at, GateInput::Received { peer, link: LinkId::from(number), bytes });
    }

    fn is_online(&self, at: usize, who: PublicKey) -> bool {
        let online = |item: &Item<R>| matches!(item, Item::Network(NetworkOutput::Online { peer, .. }) if *peer == who);
        self.out[at].iter().any(online)
    }

    /// Why it has sent that peer away.
    fn refusal(&self, at: usize, who: PublicKey) -> Option<&str> {
        self.out[at].iter().find_map(|item| match item {
            Item::Network(NetworkOutput::Refuse { peer, why, .. }) if *peer == who => Some(why.as_str()),
            _ => None,
        })
    }

    /// Unproven peers and challenges that it remembers.
    fn state(&mut self, at: usize) -> u64 {
        self.give(at, GateInput::Count { request: 0 });
        let Some(Item::Api(ApiInput::Counted { counts, .. })) = self.out[at].pop() else { panic!() };
        let state = counts.iter().filter(|(name, _)| ["unproven", "challenges"].contains(name));
        state.map(|(_, count)| count).sum()
    }
}

fn gate<R: Reference>(place: usize, allowed: Option<BTreeSet<PublicKey>>) -> Gate<R> {
    let Peer { key: me, contact } = peer(place);
    let identity = identity(place);
    let settings = GateSettings { me, contact, seed: [place as u8; 32], lifetime: LIFETIME, allowed };
    Gate::new(settings, Box::new(move |purpose, bytes| identity.sign_for(purpose, bytes)))
}

/// The three messages between A and B over stream 1, recorded.
fn record_exchange<R: Reference>(ends: &mut Ends<R>, places: &[usize]) -> [Vec<u8>; 3] {
    let (a, b) = (key(places[A]), key(places[B]));
    ends.join(places, A, B, 1);
    let ping = ends.sent(A, b).expect("the smaller key begins");
    ends.receive(B, a, 1, ping.clone());
    assert!(!ends.is_online(B, a), "whoever has only asked has proved nothing");
    let pong = ends.sent(B, a).unwrap();
    ends.receive(A, b, 1, pong.clone());
    let done = ends.sent(A, b).unwrap();
    ends.receive(B, a, 1, done.clone());
    [ping, pong, done]
}

for_each_reference!(
    two_nodes_prove_to_each_other_who_they_are,
    a_recorded_exchange_proves_nothing_over_another_stream,
    who_answers_for_another_is_refused,
    a_challenge_is_answered_once_and_in_time,
    words_out_of_turn_are_refused,
    only_those_are_let_in_who_are_allowed,
    what_its_author_has_not_signed_ends_here,
);

fn two_nodes_prove_to_each_other_who_they_are<R: Reference>() {
    let (mut ends, places) = Ends::<R>::new();
    record_exchange(&mut ends, &places);
    for (at, other) in [(A, B), (B, A)] {
        let other = peer(places[other]);
        assert!(ends.is_online(at, other.key));
        assert!(ends.out[at].contains(&Item::Router(RouterInput::Online(R::new(other.clone())))));
        assert_eq!(ends.state(at), 0);
        ends.give(at, GateInput::Down { peer: other.key, link: LinkId::from(1) });
        assert!(ends.out[at].contains(&Item::Router(RouterInput::Offline(other.key))));
    }
}

/// Each message alone and all three, at either, from Mallory and over a later stream of the same two.
fn a_recorded_exchange_proves_nothing_over_another_stream<R: Reference>() {
    for replayed in [vec![0], vec![1], vec![2], vec![0, 1, 2]] {
        for (victim, speaker) in [(B, MALLORY), (A, MALLORY), (B, A), (A, B)] {
            let (mut ends, places) = Ends::<R>::new();
            let recorded = record_exchange(&mut ends, &places);
            let original = if victim == A { B } else { A };
            ends.give(victim, GateInput::Down { peer: key(places[original]), link: LinkId::from(1) });
            ends.out.iter_mut().for_each(Vec::clear);
            ends.join(&places, victim, speaker, 2);
            for message in &replayed {
                ends.receive(victim, key(places[speaker]), 2, recorded[*message].clone());
            }
            for place in 0..3 {
                assert!(!ends.is_online(victim, key(place)), "{replayed:?} at {victim} by {speaker}");
            }
            assert!(ends.refusal(victim, key(places[speaker])).is_some());
            let (now, out) = (ends.now + LIFETIME, &mut ends.out[victim]);
            ends.gates[victim].handle_timeout(now, out);
            assert_eq!(ends.state(victim), 0);
        }
    }
}

fn who_answers_for_another_is_refused<R: Reference>() {
    const WRONG: Option<&str> = Some("the signature is not of who it says it is over this stream");
    // Mallory hands on to B how A greets her.
    let (mut ends, places) = Ends::<R>::new();
    let [a, b, mallory] = [A, B, MALLORY].map(|place| key(places[place]));
    ends.join(&places, A, MALLORY, 1);
    ends.join(&places, B, MALLORY, 2);
    let greeting = ends.sent(A, mallory).unwrap();
    ends.receive(B, mallory, 2, greeting);
    assert_eq!(ends.refusal(B, mallory), WRONG);
    assert!(!ends.is_online(B, a) && !ends.is_online(B, mallory));

    // She takes a key that lets her begin, asks A what B asks her, and hands on to B how A answers.
    let (mut ends, _) = Ends::<R>::new();
    let begins = (100..).find(|place| key(*place) < a).expect("there are keys enough");
    let mallory = key(begins);
    let mut challenge = [5; 32];
    let mut answer = Vec::new();
    for (at, me, number) in [(B, b, 3), (A, a, 4)] {
        let (link, binding) = (LinkId::from(number), [number as u8; 32]);
        ends.give(at, GateInput::Up { peer: mallory, link, binding, neighbour: true });
        ends.receive(at, mallory, number, own_ping::<R>(begins, me, challenge, binding));
        let Ok(Message::<R>::Auth(AuthMessage::Pong { other, signature, .. })) =
            Message::from_bytes(&ends.sent(at, mallory).expect("everybody is answered"))
        else {
            panic!("it is no answer")
        };
        if at == B {
            challenge = other;
        } else {
            answer = Message::<R>::Auth(AuthMessage::Done { other: challenge, signature }).to_bytes();
        }
    }
    ends.receive(B, mallory, 3, answer);
    assert_eq!(ends.refusal(B, mallory), WRONG);
    assert!(!ends.is_online(B, a) && !ends.is_online(B, mallory));
}

/// A greeting with a challenge of the sender's choice.
fn own_ping<R: Reference>(place: usize, to: PublicKey, challenge: Challenge, binding: [u8; 32]) -> Vec<u8> {
    let Peer { key, contact } = peer(place);
    let claim = Claim { key, contact, neighbour: true };
    let transcript =
        Transcript { first: &key, second: &to, challenge: &challenge, other: &[0; 32], binding: &binding };
    let signed = transcript.bytes(Role::Ping, &claim);
    let signature = identity(place).sign_for(PURPOSE, &signed).to_vec();
    Message::<R>::Auth(AuthMessage::Ping { claim, challenge, signature }).to_bytes()
}

fn a_challenge_is_answered_once_and_in_time<R: Reference>() {
    let (mut ends, places) = Ends::<R>::new();
    let [_, _, done] = record_exchange(&mut ends, &places);
    let a = key(places[A]);
    ends.receive(B, a, 1, done);
    assert_eq!(ends.refusal(B, a), Some("the message is out of turn"));

    let (mut ends, places) = Ends::<R>::new();
    ends.join(&places, A, B, 1);
    let ping = ends.sent(A, key(places[B])).unwrap();
    ends.receive(B, a, 1, ping);
    let pong = ends.sent(B, a).unwrap();
    ends.now += LIFETIME;
    let (now, out) = (ends.now, &mut ends.out[A]);
    ends.gates[A].handle_timeout(now, out);
    assert_eq!(ends.refusal(A, key(places[B])), Some("it did not prove in time who it is"));
    ends.receive(A, key(places[B]), 1, pong);
    assert!(!ends.is_online(A, key(places[B])));
    assert_eq!(ends.state(A), 0);
}

fn words_out_of_turn_are_refused<R: Reference>() {
    for (words, why) in [
        (
            Message::<R>::NotFound { id: 1, share: 0 }.to_bytes(),
            "it said something else before it had proved who it is",
        ),
        (
            Message::<R>::Put(R::new(record(1, "name", 1))).to_bytes(),
            "it said something else before it had proved who it is",
        ),
        (b"nonsense".to_vec(), "it said something else before it had proved who it is"),
        (
            Message::<R>::Auth(AuthMessage::Done { other: [7; 32], signature: vec![0; 64] }).to_bytes(),
            "the message is out of turn",
        ),
    ] {
        let (mut ends, places) = Ends::<R>::new();
        let a = key(places[A]);
        ends.join(&places, A, B, 1);
        ends.receive(B, a, 1, words);
        assert_eq!(ends.refusal(B, a), Some(why));
        assert_eq!(ends.state(B), 0);
    }
    let (mut ends, places) = Ends::<R>::new();
    record_exchange(&mut ends, &places);
    ends.receive(B, key(places[A]), 1, b"nonsense".to_vec());
    assert!(ends.refusal(B, key(places[A])).is_none(), "a neighbour may be newer than this node");
    assert!(ends.out[B].iter().any(|item| matches!(item, Item::Network(NetworkOutput::Odd { .. }))));
}

fn only_those_are_let_in_who_are_allowed<R: Reference>() {
    let (mut ends, places) = Ends::<R>::new();
    ends.gates[B] = gate(places[B], Some(BTreeSet::from([key(places[MALLORY])])));
    ends.join(&places, A, B, 1);
    assert_eq!(ends.refusal(B, key(places[A])), Some("it is none of those that are allowed"));
}

fn what_its_author_has_not_signed_ends_here<R: Reference>() {
    let (mut ends, places) = Ends::<R>::new();
    record_exchange(&mut ends, &places);
    let mut forged = record(1, "name", 1);
    forged.value = b"something else".to_vec();
    let (genuine, forged) = (R::new(record(2, "name", 1)), R::new(forged));
    let from = key(places[A]);
    ends.out[B].clear();
    ends.receive(B, from, 1, Message::<R>::Put(forged.clone()).to_bytes());
    assert!(ends.out[B].is_empty());
    let both = Message::<R>::Found { id: 5, records: vec![forged, genuine.clone()], share: 0 };
    ends.receive(B, from, 1, both.to_bytes());
    let message = Message::Found { id: 5, records: vec![genuine], share: 0 };
    assert_eq!(ends.out[B], [Item::Router(RouterInput::Message { from, message })]);
}

#[test]
fn a_question_for_a_name_that_nobody_can_have_is_no_message() {
    let ask = |name: usize, contact: usize| {
        let (name, contact) = ("n".repeat(name), "c".repeat(contact));
        let way = format!(r#"{{"Far":{{"to":"{}","contact":"{contact}","id":1,"share":0}}}}"#, key(1));
        let rest = r#""hops":1,"fan_out":1,"wanted":1,"together":[],"history":[]"#;
        let text = format!(r#"{{"Ask":{{"id":1,"tag":2,"key":"{name}","way":{way},{rest}}}}}"#);
        Message::<RcRef>::from_bytes(text.as_bytes()).map(drop)
    };
    assert_eq!(ask(MAX_KEY, 512), Ok(()));
    for (name, contact) in [(MAX_KEY + 1, 0), (200_000, 0), (0, 513)] {
        let error = ask(name, contact).unwrap_err().to_string();
        assert!(error.contains("is the most"), "{error}");
    }
}
