//! What others say, and how much of it counts.

use super::*;

#[test]
fn nobody_is_believed_without_the_password() {
    let mut bench = Bench::challenged();
    // Success and refusal by someone who saw the request.
    for class in [Class::Success, Class::Error] {
        let forged = bench.answer(class, None, |builder| {
            builder
                .error_code(486, "")
                .xor_address(attribute::XOR_RELAYED_ADDRESS, "192.0.2.66:6".parse().unwrap())
        });
        assert_eq!(bench.receive(&forged), TurnReceived::Ignored);
    }
    let stranger = TurnCredentials::new("user", "guess").classic_key(b"realm");
    let forged = bench.answer(Class::Success, Some(&stranger), allocation);
    assert_eq!(bench.receive(&forged), TurnReceived::Ignored);
    assert_eq!(bench.client.poll_event(), None);
    // The true answer still counts.
    let key = TurnCredentials::new("user", "secret").classic_key(b"realm");
    let answer = bench.answer(Class::Success, Some(&key), allocation);
    let elsewhere =
        Datagram { socket: SocketIndex::MAIN, source: "203.0.113.21:3478".parse().unwrap(), bytes: &answer };
    assert_eq!(bench.client.receive(bench.now, elsewhere), TurnReceived::Ignored);
    assert_eq!(bench.receive(&answer), TurnReceived::Handled);
    assert!(matches!(bench.client.poll_event(), Some(TurnEvent::Allocated { .. })));
    assert_eq!(bench.receive(&answer), TurnReceived::Ignored, "a replay");
    assert_eq!(bench.client.stats().ignored, 5);
}

#[test]
fn if_only_unsigned_answers_come_their_reason_is_told_in_the_end() {
    let mut bench = Bench::challenged();
    let refusal = bench.answer(Class::Error, None, |builder| builder.error_code(508, ""));
    bench.receive(&refusal);
    while let Some(due) = bench.client.poll_timeout() {
        bench.client.handle_timeout(due);
    }
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed(TurnFailure::Refused(508))));
}

#[test]
fn endless_challenges_and_referrals_come_to_an_end() {
    let mut bench = Bench::challenged();
    let mut rounds = 0;
    let failure = loop {
        rounds += 1;
        let challenge = bench.answer(Class::Error, None, |builder| {
            builder.error_code(438, "").attribute(attribute::NONCE, &[b'n', rounds])
        });
        bench.receive(&challenge);
        if let Some(event) = bench.client.poll_event() {
            break event;
        }
        bench.drain();
    };
    assert_eq!((failure, rounds), (TurnEvent::Failed(TurnFailure::Challenges), 4));

    let mut bench = Bench::new();
    for number in 21.. {
        let next = SocketAddr::from(([203, 0, 113, number], 3478));
        let referral = bench.answer(Class::Error, None, |builder| {
            builder.error_code(300, "").address(attribute::ALTERNATE_SERVER, next)
        });
        bench.receive(&referral);
        match bench.client.poll_event() {
            Some(TurnEvent::Redirected(to)) => assert_eq!((to, bench.drain()), (next, next)),
            Some(event) => {
                assert_eq!((event, number), (TurnEvent::Failed(TurnFailure::Redirects), 24));
                break;
            }
            None => panic!("neither followed nor given up"),
        }
    }
}

#[test]
fn over_a_stream_a_referral_waits_for_the_new_connection() {
    let mut bench = Bench::over(TurnLink::Stream);
    let next = "203.0.113.21:3478".parse().unwrap();
    let referral = bench.answer(Class::Error, None, |builder| {
        builder.error_code(300, "").address(attribute::ALTERNATE_SERVER, next)
    });
    bench.receive(&referral);
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Redirected(next)));
    assert_eq!(bench.client.poll_transmit(), None);
    bench.client.handle_reconnected(bench.now);
    assert_eq!(bench.drain(), next);
}

#[test]
fn strangers_and_floods_find_a_bound() {
    let mut bench = Bench::allocated();
    let data = |from: &str| {
        MessageBuilder::new(Class::Indication, Method::DATA, TransactionId([0; 12]))
            .xor_address(attribute::XOR_PEER_ADDRESS, from.parse().unwrap())
            .attribute(attribute::DATA, b"flood")
            .finish()
    };
    assert_eq!(bench.receive(&data("192.0.2.66:6")), TurnReceived::Ignored, "nobody asked for it");
    assert_eq!(bench.receive(&[0x40, 0, 0, 1, 7]), TurnReceived::Ignored, "no such channel");
    assert_eq!(bench.receive(&[0x40, 0, 0, 9, 7]), TurnReceived::Ignored, "cut off");

    bench.client.permit(bench.now, "192.0.2.2".parse().unwrap()).unwrap();
    let flood = data("192.0.2.2:4000");
    for _ in 0..1_000 {
        let source = bench.client.server();
        let datagram = Datagram { socket: SocketIndex::MAIN, source, bytes: &flood };
        bench.client.handle_datagram(bench.now, datagram);
    }
    let events = std::iter::from_fn(|| bench.client.poll_event()).count();
    assert_eq!((events, bench.client.stats().overflowed), (256, 744));

    let mut refused = 0;
    for number in 0..1_000_u32 {
        let peer = IpAddr::from((0xC000_0000_u32 + number).to_be_bytes());
        refused += u32::from(bench.client.permit(bench.now, peer) == Err(TurnSendError::TooManyPeers));
    }
    assert_eq!(refused, 744, "one of them has a place already");
    let mut taken = 0;
    while bench.client.send(bench.now, "192.0.2.2:4000".parse().unwrap(), b"x").is_ok() {
        taken += 1;
        assert!(taken <= 256);
    }
}

#[test]
fn a_forged_word_that_nobody_is_there_changes_nothing() {
    let mut bench = Bench::allocated();
    for _ in 0..100 {
        bench.client.handle_unreachable(bench.now);
        if bench.client.transmits.is_empty() {
            continue;
        }
        bench.drain();
        let key = TurnCredentials::new("user", "secret").classic_key(b"realm");
        let answer =
            bench.answer(Class::Success, Some(&key), |b| b.attribute(attribute::LIFETIME, &[0, 0, 2, 88]));
        assert_eq!(bench.receive(&answer), TurnReceived::Handled);
    }
    assert_eq!(bench.client.poll_event(), None);
    for _ in 0..3 {
        bench.client.handle_unreachable(bench.now);
    }
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed(TurnFailure::Unreachable)));
}
