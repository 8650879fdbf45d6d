use proptest::prelude::*;
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
    crypto::{
        CryptoProvider,
        cipher::{AeadKey, OutboundChunks, OutboundPlainMessage},
        ring,
    },
};

use super::*;
use crate::{Identity, protocol::raw_key::TlsConfigs};

/// Two ends whose handshake is over, and what each has received.
struct Pair {
    ends: [TlsCore; 2],
    inputs: [Vec<u8>; 2],
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self::handshaking(TlsConfigs::new(&Identity::from_seed([1; 32])).client);
        pair.shake_hands();
        pair
    }

    fn handshaking(client: Arc<ClientConfig>) -> Self {
        let acceptor = Identity::from_seed([2; 32]);
        let dialer = TlsCore::dial(client, &acceptor.public_key()).unwrap();
        let acceptor = TlsCore::accept(TlsConfigs::new(&acceptor).server).unwrap();
        Self { ends: [dialer, acceptor], inputs: [Vec::new(), Vec::new()] }
    }

    fn shake_hands(&mut self) {
        for _ in 0..4 {
            for end in 0..2 {
                assert_eq!(self.read(end), (vec![], false));
                let replies = self.ends[end].take_replies();
                self.inputs[1 - end].extend(replies);
            }
        }
        assert!(self.ends.iter().all(|end| !end.is_handshaking()));
    }

    fn write(&mut self, from: usize, data: &[u8]) {
        let mut out = vec![0; MAX_RECORD_BYTES + 1_000];
        let written = self.ends[from].encrypt(data, &mut out).unwrap();
        self.inputs[1 - from].extend_from_slice(&out[..written]);
    }

    fn end(&mut self, from: usize) {
        let mut out = [0; 1_000];
        let written = self.ends[from].end(&mut out).unwrap();
        self.inputs[1 - from].extend_from_slice(&out[..written]);
    }

    /// Everything that can be decrypted, and whether the end came.
    fn read(&mut self, to: usize) -> (Vec<u8>, bool) {
        let mut data = Vec::new();
        loop {
            let mut take = |bytes: &[u8]| data.extend_from_slice(bytes);
            let step = self.ends[to].decrypt(&mut self.inputs[to], &mut take).unwrap();
            self.inputs[to].drain(..step.used);
            match step.progress {
                Progress::Record => {}
                Progress::Ended => return (data, true),
                Progress::Starved => return (data, false),
            }
        }
    }
}

#[test]
fn a_record_goes_through_each_way_and_one_end_leaves_the_other_direction_open() {
    let mut pair = Pair::new();
    pair.write(0, b"there");
    pair.end(0);
    assert_eq!(pair.read(1), (b"there".to_vec(), true));
    pair.write(1, b"and back");
    pair.end(1);
    assert_eq!(pair.read(0), (b"and back".to_vec(), true));
    assert!(matches!(pair.ends[0].encrypt(b"too late", &mut [0; 100]), Err(TlsError::Failed)));
}

#[test]
fn an_altered_record_is_an_error_and_leaves_an_alert_for_the_peer() {
    let mut pair = Pair::new();
    pair.write(0, b"there");
    *pair.inputs[1].last_mut().unwrap() ^= 1;
    let input = std::mem::take(&mut pair.inputs[1]);
    let error = pair.ends[1].decrypt(&mut input.clone(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, TlsError::Tls(rustls::Error::DecryptError)), "{error:?}");
    pair.inputs[0] = pair.ends[1].take_replies();
    let error = pair.ends[0].decrypt(&mut pair.inputs[0], &mut |_| {}).unwrap_err();
    assert!(matches!(error, TlsError::Tls(rustls::Error::AlertReceived(_))), "{error:?}");
    assert!(matches!(pair.ends[1].encrypt(b"x", &mut [0; 100]), Err(TlsError::Failed)));
}

#[test]
fn without_room_nothing_is_lost() {
    let mut pair = Pair::new();
    let error = pair.ends[0].encrypt(&[7; 100], &mut [0; 100]).unwrap_err();
    assert!(matches!(error, TlsError::NoRoom { needed: 122 }), "{error:?}");
    pair.write(0, &[7; 100]);
    assert_eq!(pair.read(1).0, [7; 100]);
}

#[test]
fn an_answer_to_a_key_update_goes_out_before_the_next_record() {
    let mut pair = Pair::new();
    for round in 0..3 {
        let Connection::Dialer(dialer) = &mut pair.ends[0].connection else { unreachable!() };
        let Ok(ConnectionState::WriteTraffic(traffic)) = dialer.process_tls_records(&mut []).state else {
            panic!("the dialer may write");
        };
        traffic.refresh_traffic_keys().unwrap();
        pair.write(0, b"under a new key");
        assert_eq!(pair.read(1).0, b"under a new key", "{round}");
        pair.write(1, b"and so is this");
        assert_eq!(pair.read(0).0, b"and so is this", "{round}");
    }
}

#[test]
fn a_handshake_message_in_pieces_ends_the_connection_instead_of_the_process() {
    // The public way to make a key for an encrypter takes the 32 bytes of AES-256 only.
    let aes_256 = ring::cipher_suite::TLS13_AES_256_GCM_SHA384;
    let provider = CryptoProvider { cipher_suites: vec![aes_256], ..ring::default_provider() };
    let identity = Identity::from_seed([1; 32]);
    let mut config = TlsConfigs::with_provider(&identity, provider).client;
    Arc::make_mut(&mut config).enable_secret_extraction = true;
    let mut pair = Pair::handshaking(config);
    pair.shake_hands();
    // A dialer that is not ours sends the first bytes of a message and no more.
    let [dialer, mut acceptor] = pair.ends;
    let Connection::Dialer(dialer) = dialer.connection else { unreachable!() };
    let (secrets, _) = dialer.dangerous_into_kernel_connection().unwrap();
    let mut incoming = encrypt_as(secrets.tx, ContentType::Handshake, &[4, 0, 1, 0, 9, 9]);
    let error = acceptor.decrypt(&mut incoming, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TlsError::Fragmented), "{error:?}");
    assert!(matches!(acceptor.encrypt(b"x", &mut [0; 100]), Err(TlsError::Failed)));
}

fn encrypt_as(
    (sequence, secrets): (u64, ConnectionTrafficSecrets),
    typ: ContentType,
    payload: &[u8],
) -> Vec<u8> {
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
        panic!("the only suite is AES-256-GCM")
    };
    let suites = rustls::crypto::ring::default_provider().cipher_suites;
    let suite = suites.into_iter().find_map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) if suite.common.suite == CipherSuite::TLS13_AES_256_GCM_SHA384 => {
            Some(suite)
        }
        _ => None,
    });
    let key: [u8; 32] = key.as_ref().try_into().unwrap();
    let mut encrypter = suite.unwrap().aead_alg.encrypter(AeadKey::from(key), iv);
    let payload = OutboundChunks::Single(payload);
    let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
    encrypter.encrypt(message, sequence).unwrap().encode()
}

#[derive(Debug, Clone)]
enum Operation {
    Write { from: usize, length: usize },
    Read { to: usize },
    UpdateKeys { from: usize },
    End { from: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..2usize, 0..=MAX_PLAINTEXT_BYTES).prop_map(|(from, length)| Operation::Write { from, length }),
        3 => (0..2usize).prop_map(|to| Operation::Read { to }),
        1 => (0..2usize).prop_map(|from| Operation::UpdateKeys { from }),
        1 => (0..2usize).prop_map(|from| Operation::End { from }),
    ]
}

fn update_keys(core: &mut TlsCore) {
    match &mut core.connection {
        Connection::Dialer(connection) => {
            if let Ok(ConnectionState::WriteTraffic(traffic)) = connection.process_tls_records(&mut []).state
            {
                traffic.refresh_traffic_keys().unwrap();
            }
        }
        Connection::Acceptor(connection) => {
            if let Ok(ConnectionState::WriteTraffic(traffic)) = connection.process_tls_records(&mut []).state
            {
                traffic.refresh_traffic_keys().unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_order_of_calls_every_byte_arrives_once(
        operations in proptest::collection::vec(operation(), 1..40)
    ) {
        let mut pair = Pair::new();
        let mut sent = [Vec::new(), Vec::new()];
        let mut received = [Vec::new(), Vec::new()];
        let mut ended = [false; 2];
        let mut next = 0u8;
        let end = [Operation::Read { to: 0 }, Operation::Read { to: 1 }];
        for operation in operations.into_iter().chain(end) {
            match operation {
                Operation::Write { from, length } if !ended[from] => {
                    next = next.wrapping_add(1);
                    let data = vec![next; length];
                    pair.write(from, &data);
                    sent[from].extend(data);
                }
                Operation::UpdateKeys { from } if !ended[from] => {
                    update_keys(&mut pair.ends[from]);
                    // As rustls itself does it, in the midst of a write.
                    pair.write(from, b"new");
                    sent[from].extend(b"new");
                }
                Operation::End { from } if !ended[from] => {
                    pair.end(from);
                    ended[from] = true;
                }
                Operation::Read { to } => {
                    let (data, end) = pair.read(to);
                    received[1 - to].extend(data);
                    prop_assert_eq!(end, ended[1 - to]);
                }
                _ => {}
            }
        }
        prop_assert_eq!(sent, received);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), established: bool) {
        let mut pair = if established {
            Pair::new()
        } else {
            Pair::handshaking(TlsConfigs::new(&Identity::from_seed([1; 32])).client)
        };
        for end in &mut pair.ends {
            let _ = end.decrypt(&mut bytes.clone(), &mut |_| {});
            let _ = end.encrypt(b"x", &mut [0; 1_000]);
        }
    }
}

/// rustls' own buffered connection at one end, ours at the other.
#[test]
fn both_ends_export_what_rustls_exports() {
    let acceptor = Identity::from_seed([2; 32]);
    for suite in ring::ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_some()) {
        let provider = CryptoProvider { cipher_suites: vec![*suite], ..ring::default_provider() };
        let dialer = TlsConfigs::with_provider(&Identity::from_seed([1; 32]), provider).client;
        let name = raw_key::server_name(&acceptor.public_key());
        let mut theirs = rustls::ClientConnection::new(dialer, name).unwrap();
        let mut ours = TlsCore::accept(TlsConfigs::new(&acceptor).server).unwrap();
        assert_eq!(ours.export(&mut [0; 32], b"EXPORTER-test", b""), None, "there are no keys yet");
        while theirs.is_handshaking() || ours.is_handshaking() {
            let mut bytes = Vec::new();
            while theirs.wants_write() {
                theirs.write_tls(&mut bytes).unwrap();
            }
            assert_eq!(ours.decrypt(&mut bytes, &mut |_| ()).unwrap().used, bytes.len());
            let replies = ours.take_replies();
            assert_eq!(theirs.read_tls(&mut &replies[..]).unwrap(), replies.len());
            theirs.process_new_packets().unwrap();
        }
        for (length, label, context) in
            [(32, &b"EXPORTER-test"[..], &b""[..]), (100, b"EXPORTER-x", b"of it")]
        {
            let (mut one, mut other) = (vec![0; length], vec![1; length]);
            ours.export(&mut one, label, context).unwrap();
            theirs.export_keying_material(&mut other, label, Some(context)).unwrap();
            assert_eq!(one, other);
        }
        assert_eq!(ours.export(&mut [0; 1 << 16], b"EXPORTER-test", b""), None, "more than there can be");
        assert_eq!(ours.export(&mut [0; 32], &[b'x'; 250], b""), None, "longer than a label can be");
    }
}
