use super::*;
use crate::{
    AccessToken, Identity, NetworkName, ProtocolLabel,
    protocol::{preface::Purpose, raw_key::TlsConfigs},
};

#[test]
fn byte_by_byte_both_sides_come_through_and_the_stream_begins_where_the_handshake_ends() {
    let mut pair = Pair::new();
    while pair.step(1) {
        if let Some(HandshakeEvent::Preface { peer, preface }) = pair.acceptor.poll_event() {
            assert_eq!((peer, preface), (identity(1).public_key(), our_preface()));
            pair.acceptor.answer(Verdict::Accepted);
        }
    }
    assert_eq!(pair.dialer.poll_event(), Some(HandshakeEvent::Finished));
    assert_eq!(pair.dialer.poll_event(), Some(HandshakeEvent::Verdict(Verdict::Accepted)));
    let (dialer, acceptor) = (pair.dialer.into_established(), pair.acceptor.into_established());
    assert_eq!((dialer.peer, acceptor.peer), (identity(2).public_key(), identity(1).public_key()));
    assert!(dialer.incoming.is_empty() && dialer.plaintext.is_empty());
    assert!(acceptor.incoming.is_empty() && acceptor.plaintext.is_empty());
}

#[test]
fn a_refusal_reaches_the_dialer() {
    for reason in
        [Refusal::Key, Refusal::Label, Refusal::Token, Refusal::Myself, Refusal::Full, Refusal::Malformed]
    {
        let mut pair = Pair::new();
        pair.run();
        assert!(matches!(pair.acceptor.poll_event(), Some(HandshakeEvent::Preface { .. })));
        pair.acceptor.answer(Verdict::Refused(reason));
        pair.run();
        assert_eq!(pair.dialer.poll_event(), Some(HandshakeEvent::Finished));
        assert_eq!(pair.dialer.poll_event(), Some(HandshakeEvent::Verdict(Verdict::Refused(reason))));
    }
}

#[test]
fn another_key_is_wrong_peer_for_the_dialer_and_an_alert_for_the_acceptor() {
    let mut pair = Pair::expecting(identity(3).public_key());
    let (to_dialer, to_acceptor) = pair.run_to_errors();
    assert!(matches!(to_dialer, Some(HandshakeError::WrongPeer)), "{to_dialer:?}");
    assert!(matches!(to_acceptor, Some(HandshakeError::Tls(_))), "{to_acceptor:?}");
    // The secret in the preface was never sent.
    assert_eq!(pair.dialer.poll_event(), None);
}

#[test]
fn a_resumed_session_comes_through_and_knows_both_keys() {
    let (dialer, acceptor) = (TlsConfigs::new(&identity(1)), TlsConfigs::new(&identity(2)));
    let mut flights = Vec::new();
    for _ in 0..2 {
        let mut pair = Pair::with(&dialer, &acceptor, identity(2).public_key());
        pair.run();
        assert!(matches!(pair.acceptor.poll_event(), Some(HandshakeEvent::Preface { .. })));
        pair.acceptor.answer(Verdict::Accepted);
        pair.run();
        flights.push(pair.sent_bytes);
        assert_eq!(pair.dialer.into_established().peer, identity(2).public_key());
        assert_eq!(pair.acceptor.into_established().peer, identity(1).public_key());
    }
    assert!(flights[1].1 < flights[0].1, "the second acceptor sent no key and no proof: {flights:?}");
}

#[test]
fn without_resumption_every_handshake_is_a_full_one() {
    let (dialer, acceptor) = (TlsConfigs::without_resumption(&identity(1)), TlsConfigs::new(&identity(2)));
    let mut flights = Vec::new();
    for _ in 0..2 {
        let mut pair = Pair::with(&dialer, &acceptor, identity(2).public_key());
        pair.run();
        flights.push(pair.sent_bytes);
    }
    assert_eq!(flights[0], flights[1]);
}

#[test]
fn a_session_is_never_offered_to_another_key() {
    let (dialer, acceptor) = (TlsConfigs::new(&identity(1)), TlsConfigs::new(&identity(2)));
    let mut pair = Pair::with(&dialer, &acceptor, identity(2).public_key());
    pair.run();
    pair.acceptor.answer(Verdict::Accepted);
    pair.run();
    let mut pair = Pair::with(&dialer, &acceptor, identity(3).public_key());
    assert!(matches!(pair.run_to_errors().0, Some(HandshakeError::WrongPeer)));
}

#[test]
fn early_bytes_after_the_preface_wait_for_the_stream() {
    let mut pair = Pair::new();
    pair.step(usize::MAX);
    pair.step(usize::MAX);
    let mut record = [0; 100];
    pair.dialer.poll_transmit().into_iter().for_each(|bytes| pair.acceptor.handle_bytes(&bytes).unwrap());
    let length = pair.dialer.core.encrypt(b"early", &mut record).unwrap();
    pair.acceptor.handle_bytes(&record[..length]).unwrap();
    assert!(matches!(pair.acceptor.poll_event(), Some(HandshakeEvent::Preface { .. })));
    pair.acceptor.answer(Verdict::Accepted);
    let mut established = pair.acceptor.into_established();
    let mut data = Vec::new();
    established.core.decrypt(&mut established.incoming, &mut |bytes| data.extend_from_slice(bytes)).unwrap();
    assert_eq!(data, b"early");
}

#[test]
fn a_preface_of_another_version_is_answered_and_names_both() {
    let mut pair = Pair::new();
    pair.dialer.stage =
        Stage::Keys(Role::Dialer { expected: identity(2).public_key(), preface: our_preface(), held: false });
    // The dialer of a later version: its preface begins with another byte.
    let mut pair = pair.without_preface();
    pair.run();
    pair.dialer.send(&[2, 0, 0, 0]).unwrap();
    pair.run();
    let event = pair.acceptor.poll_event();
    let Some(HandshakeEvent::BadPreface(reason)) = event else { panic!("{event:?}") };
    assert_eq!(reason, Refusal::Version { theirs: 2, ours: 1 });
    pair.acceptor.answer(Verdict::Refused(reason));
    assert!(pair.acceptor.poll_transmit().is_some());
}

#[test]
fn garbage_and_a_giant_length_are_errors_at_once() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 0xff, 0xff, 1], &[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]]
    {
        let mut acceptor = Handshake::accept(TlsConfigs::new(&identity(2)).server).unwrap();
        assert!(matches!(acceptor.handle_bytes(bytes), Err(HandshakeError::Tls(_))), "{bytes:?}");
        let mut pair = Pair::new();
        assert!(matches!(pair.dialer.handle_bytes(bytes), Err(HandshakeError::Tls(_))), "{bytes:?}");
    }
    let mut acceptor = Handshake::accept(TlsConfigs::new(&identity(2)).server).unwrap();
    assert!(matches!(acceptor.handle_bytes(&vec![22; MAX_INCOMING_BYTES + 1]), Err(HandshakeError::TooMuch)));
}

#[test]
fn an_end_at_any_byte_is_an_error_that_says_when() {
    let mut pair = Pair::new();
    let mut seen = Vec::new();
    loop {
        for error in [pair.dialer.handle_end(), pair.acceptor.handle_end()] {
            let text = error.to_string();
            assert!(text.starts_with("the connection ended before "), "{text}");
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        if !pair.step(1) {
            break;
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// Two handshakes and the wire between them.
struct Pair {
    dialer: Handshake,
    acceptor: Handshake,
    to_dialer: Vec<u8>,
    to_acceptor: Vec<u8>,
    /// By dialer and acceptor.
    sent_bytes: (usize, usize),
}

impl Pair {
    fn new() -> Self {
        Self::expecting(identity(2).public_key())
    }

    fn expecting(expected: PublicKey) -> Self {
        Self::with(&TlsConfigs::new(&identity(1)), &TlsConfigs::new(&identity(2)), expected)
    }

    fn with(dialer: &TlsConfigs, acceptor: &TlsConfigs, expected: PublicKey) -> Self {
        Self {
            dialer: Handshake::dial(dialer.client.clone(), expected, our_preface(), false).unwrap(),
            acceptor: Handshake::accept(acceptor.server.clone()).unwrap(),
            to_dialer: Vec::new(),
            to_acceptor: Vec::new(),
            sent_bytes: (0, 0),
        }
    }

    /// Makes the dialer's side do the TLS part only.
    fn without_preface(mut self) -> Self {
        self.dialer.stage = Stage::Over { peer: identity(2).public_key() };
        self.transmit();
        for _ in 0..4 {
            let bytes = std::mem::take(&mut self.to_acceptor);
            self.acceptor.handle_bytes(&bytes).unwrap();
            self.transmit();
            let mut bytes = std::mem::take(&mut self.to_dialer);
            let used = self.dialer.core.decrypt(&mut bytes, &mut |_| {}).unwrap().used;
            self.to_dialer = bytes.split_off(used);
            self.dialer.outgoing.append(&mut self.dialer.core.take_replies());
            self.transmit();
        }
        self
    }

    fn transmit(&mut self) {
        while let Some(bytes) = self.dialer.poll_transmit() {
            self.sent_bytes.0 += bytes.len();
            self.to_acceptor.extend(bytes);
        }
        while let Some(bytes) = self.acceptor.poll_transmit() {
            self.sent_bytes.1 += bytes.len();
            self.to_dialer.extend(bytes);
        }
    }

    /// Moves at most so many bytes each way; tells whether anything moved.
    fn step(&mut self, limit: usize) -> bool {
        self.transmit();
        let to_acceptor: Vec<u8> = self.to_acceptor.drain(..limit.min(self.to_acceptor.len())).collect();
        let to_dialer: Vec<u8> = self.to_dialer.drain(..limit.min(self.to_dialer.len())).collect();
        self.acceptor.handle_bytes(&to_acceptor).unwrap();
        self.dialer.handle_bytes(&to_dialer).unwrap();
        !to_acceptor.is_empty() || !to_dialer.is_empty()
    }

    fn run(&mut self) {
        while self.step(usize::MAX) {}
    }

    fn run_to_errors(&mut self) -> (Option<HandshakeError>, Option<HandshakeError>) {
        let (mut to_dialer, mut to_acceptor) = (None, None);
        for _ in 0..6 {
            self.transmit();
            let bytes = std::mem::take(&mut self.to_acceptor);
            to_acceptor = to_acceptor.or_else(|| self.acceptor.handle_bytes(&bytes).err());
            self.transmit();
            let bytes = std::mem::take(&mut self.to_dialer);
            to_dialer = to_dialer.or_else(|| self.dialer.handle_bytes(&bytes).err());
        }
        (to_dialer, to_acceptor)
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

fn our_preface() -> Preface {
    Preface {
        purpose: Purpose::Direct,
        label: ProtocolLabel::new("test/1").unwrap(),
        token: Some(AccessToken::from_bytes([7; 16])),
        network: NetworkName::default(),
        stays: false,
    }
}
