use proptest::prelude::*;
use transport::{Identity, Transport, TransportConfig};

use super::*;

struct Peer(Transport);

impl Peer {
    fn new(seed: u8) -> Self {
        Self(Transport::new(Identity::from_seed([seed; 32]), TransportConfig::default()).unwrap())
    }

    fn key(&self) -> PublicKey {
        self.0.public_key()
    }

    fn knock(&self, receiver: &Self, token: Option<&AccessToken>) -> (Knocking, Vec<u8>) {
        self.knock_in(&NetworkName::default(), receiver, token)
    }

    fn knock_in(
        &self,
        network: &NetworkName,
        receiver: &Self,
        token: Option<&AccessToken>,
    ) -> (Knocking, Vec<u8>) {
        self.knock_for(receiver, Wish { label: &chat(), token, network, rescues: None, single: false })
    }

    fn knock_for(&self, receiver: &Self, wish: Wish<'_>) -> (Knocking, Vec<u8>) {
        Knocking::new(ephemeral(), self.key(), receiver.key(), wish, |text| self.0.sign(text))
    }

    fn answer(&self, knock: &[u8], particulars: &Particulars) -> (Session, Vec<u8>) {
        let knock = Knock::read(knock, self.key()).unwrap();
        knock.answer(ephemeral(), particulars, |text| self.0.sign(text)).unwrap()
    }
}

#[expect(clippy::disallowed_types, reason = "a test has to draw its keys somewhere; ring takes no others")]
fn ephemeral() -> EphemeralPrivateKey {
    EphemeralPrivateKey::generate(&X25519, &ring::rand::SystemRandom::new()).unwrap()
}

fn here() -> Particulars {
    Particulars::meeting(vec![1; 100])
}

fn chat() -> ProtocolLabel {
    ProtocolLabel::new("chat/1").unwrap()
}

#[test]
fn both_learn_what_the_other_says() {
    let (dialer, receiver) = (Peer::new(1), Peer::new(2));
    let (knocking, knock) = dialer.knock(&receiver, None);
    let particulars = here();
    assert_eq!(Knock::read(&knock, receiver.key()).unwrap().dialer(), dialer.key());
    let (mut there, answer) = receiver.answer(&knock, &particulars);
    let (mut session, heard) = knocking.handle_answer(&answer).unwrap();
    assert_eq!(heard, particulars);
    let offer = session.seal(&Particulars::default());
    assert_eq!(there.open(&offer).unwrap(), Particulars::default());
    let late = there.seal(&Particulars::refused(3));
    assert_eq!(session.open(&late).unwrap().refusal, Some(3));
}

#[test]
fn a_knock_belongs_to_one_network() {
    let (dialer, receiver) = (Peer::new(1), Peer::new(2));
    let names = ["", "test", "real"].map(|name| NetworkName::new(name).unwrap());
    for ours in &names {
        let (_, knock) = dialer.knock_in(ours, &receiver, Some(&AccessToken::from_bytes([1; 16])));
        assert!(knock.len() <= MAX_KNOCK_BYTES);
        let knock = Knock::read(&knock, receiver.key()).unwrap();
        for theirs in &names {
            assert_eq!(knock.is_of(theirs), ours == theirs);
        }
    }
}

#[test]
fn nobody_else_can_read_or_make_the_messages() {
    let (dialer, receiver, other) = (Peer::new(1), Peer::new(2), Peer::new(3));
    let (knocking, knock) = dialer.knock(&receiver, None);
    assert_eq!(Knock::read(&knock, other.key()).unwrap_err(), Flaw::Forged, "it is for another");
    let (_, answer) = receiver.answer(&knock, &here());
    let (theirs, _) = other.knock(&receiver, None);
    assert_eq!(theirs.handle_answer(&answer).unwrap_err(), Flaw::Forged);
    // An answer that somebody else made, by its own right for its own name.
    let (_, to_other) = dialer.knock(&other, None);
    let (_, wrong) = other.answer(&to_other, &here());
    assert_eq!(knocking.handle_answer(&wrong).unwrap_err(), Flaw::Forged);
}

#[test]
fn a_replayed_knock_gives_an_answer_that_only_its_maker_could_open() {
    let (dialer, receiver) = (Peer::new(1), Peer::new(2));
    let (first, knock) = dialer.knock(&receiver, None);
    let (mut session, answer) = receiver.answer(&knock, &here());
    let (mut again, second) = receiver.answer(&knock, &here());
    assert_ne!(answer, second, "each answer has a key of its own");
    let (mut dialling, _) = first.handle_answer(&answer).unwrap();
    let offer = dialling.seal(&here());
    assert_eq!(again.open(&offer).unwrap_err(), Flaw::Forged, "an offer serves one answer");
    assert!(session.open(&offer).is_ok());
    assert_eq!(session.open(&offer).unwrap_err(), Flaw::Forged, "and once");
}

#[test]
fn what_is_thrown_back_is_refused() {
    let (dialer, receiver) = (Peer::new(1), Peer::new(2));
    let (knocking, knock) = dialer.knock(&receiver, None);
    assert_eq!(Knock::read(&knock, dialer.key()).unwrap_err(), Flaw::Myself);
    let (mut there, answer) = receiver.answer(&knock, &here());
    let (mut session, _) = knocking.handle_answer(&answer).unwrap();
    let offer = session.seal(&here());
    assert_eq!(session.open(&offer).unwrap_err(), Flaw::Forged);
    let note = there.seal(&here());
    assert_eq!(there.open(&note).unwrap_err(), Flaw::Forged);
}

#[test]
fn every_changed_byte_is_noticed() {
    let (dialer, receiver) = (Peer::new(1), Peer::new(2));
    let token = AccessToken::from_bytes([7; 16]);
    let (_, knock) = dialer.knock(&receiver, Some(&token));
    for at in 0..knock.len() {
        let mut wrong = knock.clone();
        wrong[at] ^= 1;
        assert!(Knock::read(&wrong, receiver.key()).is_err(), "knock, byte {at}");
        assert!(Knock::read(&knock[..at], receiver.key()).is_err(), "knock, {at} bytes");
    }
    let (_, knock) = dialer.knock(&receiver, None);
    let (_, answer) = receiver.answer(&knock, &here());
    for at in (0..answer.len()).step_by(7) {
        let (knocking, knock) = dialer.knock(&receiver, None);
        let (_, mut answer) = receiver.answer(&knock, &here());
        answer[at] ^= 1;
        assert!(knocking.handle_answer(&answer).is_err(), "answer, byte {at}");
    }
}

#[test]
fn the_token_is_proved_and_not_shown() {
    let (dialer, receiver) = (Peer::new(1), Peer::new(2));
    let token = AccessToken::from_bytes([7; 16]);
    let (_, knock) = dialer.knock(&receiver, Some(&token));
    assert!(!knock.windows(16).any(|window| window == token.as_bytes()));
    let read = |bytes: &[u8]| Knock::read(bytes, receiver.key()).unwrap();
    assert!(read(&knock).knows(&token));
    assert!(!read(&knock).knows(&AccessToken::from_bytes([8; 16])));
    assert!(!read(&dialer.knock(&receiver, None).1).knows(&token));
}

#[test]
fn the_protocol_is_named_to_those_who_speak_it() {
    let (dialer, receiver) = (Peer::new(1), Peer::new(2));
    let (_, bytes) = dialer.knock(&receiver, None);
    assert!(!bytes.windows(6).any(|window| window == b"chat/1"));
    let knock = Knock::read(&bytes, receiver.key()).unwrap();
    assert_eq!(knock.wants(&[ProtocolLabel::default(), chat()]), Some(&chat()));
    assert_eq!(knock.wants(&[ProtocolLabel::default()]), None);
}

#[test]
fn sealed_messages_are_equally_long() {
    let (dialer, receiver) = (Peer::new(1), Peer::new(2));
    let (_, knock) = dialer.knock(&receiver, None);
    let (mut there, answer) = receiver.answer(&knock, &here());
    let lengths = [there.seal(&here()), there.seal(&Particulars::refused(1))].map(|sealed| sealed.len());
    assert_eq!(lengths, [answer.len() - 97; 2]);
    assert_eq!(lengths[0], 512 + 16);
    for length in 480..520 {
        let sealed = there.seal(&Particulars::meeting(vec![0; length]));
        assert!((sealed.len() - 16).is_multiple_of(512) || length == 507 || length == 506, "{length}");
    }
}

#[test]
fn the_most_that_can_be_said_fits() {
    let meeting = Particulars::meeting(vec![1; MAX_RENDEZVOUS_BYTES]);
    let most = Particulars { refusal: Some(1), improves: Some([2; 16]), ..meeting };
    let (dialer, receiver) = (Peer::new(1), Peer::new(2));
    let (knocking, knock) = dialer.knock(&receiver, Some(&AccessToken::from_bytes([1; 16])));
    assert!(knock.len() <= MAX_KNOCK_BYTES);
    let (_, answer) = receiver.answer(&knock, &most);
    assert!(answer.len() <= MAX_ANSWER_BYTES);
    assert_eq!(knocking.handle_answer(&answer).unwrap().1, most);
}

#[test]
fn the_golden_particulars_read_and_write() {
    for (particulars, mut golden) in [
        (Particulars::meeting(b"ab".to_vec()), b"\x01\x01\x00\x02ab".to_vec()),
        (Particulars::refused(4), b"\x01\x02\x00\x01\x04".to_vec()),
        (
            Particulars::meeting(b"ab".to_vec()).improves(Some(*b"0123456789abcdef")),
            b"\x01\x01\x00\x02ab\x03\x00\x100123456789abcdef".to_vec(),
        ),
    ] {
        assert_eq!(Particulars::decode(&golden), Ok(particulars.clone()));
        let encoded = particulars.encode();
        assert_eq!((&encoded[..golden.len()], encoded.len()), (&golden[..], 512));
        assert_eq!(Particulars::decode(&encoded), Ok(particulars.clone()));
        golden.extend(b"\xee\x00\x02ab");
        assert_eq!(Particulars::decode(&golden), Ok(particulars), "later records are ignored");
    }
    let short = [&b"\x01\x03\x00\x0f"[..], &[0; 15]].concat();
    assert_eq!(Particulars::decode(&short), Err(Flaw::Malformed), "half a mark names no connection");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let key = PublicKey::from_bytes([1; 32]);
        let _ = Knock::read(&bytes, key);
        let _ = Particulars::decode(&bytes);
    }
}
