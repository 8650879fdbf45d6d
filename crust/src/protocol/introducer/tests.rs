use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn key(seed: u8) -> PublicKey {
    PublicKey::from_bytes([seed; 32])
}

fn board() -> Switchboard {
    Switchboard::new(Bounds::default(), 3478)
}

fn from(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn orders(board: &mut Switchboard) -> Vec<(ClientId, Order)> {
    std::iter::from_fn(|| board.poll_order()).collect()
}

fn knock(number: u32, seed: u8) -> Frame {
    Frame::Knock { call: DIALLED | number, key: key(seed), knock: vec![1] }
}

/// A dialer with key 1, and the peer with key 2 attached.
fn two(board: &mut Switchboard, now: Instant) -> (ClientId, ClientId) {
    let dialer = board.connect(now, key(1), from(1)).unwrap();
    let receiver = board.connect(now, key(2), from(2)).unwrap();
    board.handle_frame(now, receiver, Frame::Attach);
    assert_eq!(orders(board), [(receiver, Order::Send(Frame::Attached { stun_port: 3478 }))]);
    (dialer, receiver)
}

#[test]
fn a_call_is_carried_both_ways_until_its_end() {
    let (start, mut board) = (start(), board());
    let (dialer, receiver) = two(&mut board, start);
    board.handle_frame(start, dialer, knock(5, 2));
    let ringing = Frame::Knock { call: 0, key: key(1), knock: vec![1] };
    assert_eq!(orders(&mut board), [(receiver, Order::Send(ringing))]);
    board.handle_frame(start, receiver, Frame::Note { call: 0, note: vec![2] });
    board.handle_frame(start, dialer, Frame::Note { call: DIALLED | 5, note: vec![3] });
    board.handle_frame(start, dialer, Frame::End { call: DIALLED | 5, reason: EndReason::Done });
    assert_eq!(
        orders(&mut board),
        [
            (dialer, Order::Send(Frame::Note { call: DIALLED | 5, note: vec![2] })),
            (receiver, Order::Send(Frame::Note { call: 0, note: vec![3] })),
            (receiver, Order::Send(Frame::End { call: 0, reason: EndReason::Done })),
        ]
    );
    board.handle_frame(start, receiver, Frame::Note { call: 0, note: vec![4] });
    assert_eq!(orders(&mut board), [], "it is over");
}

#[test]
fn each_side_is_vouched_for_once_and_only_if_it_asks() {
    let (start, mut board) = (start(), board());
    let (dialer, receiver) = two(&mut board, start);
    let third = board.connect(start, key(3), from(3)).unwrap();
    board.handle_frame(start, dialer, knock(5, 2));
    orders(&mut board);
    let wish = |call| Frame::Vouch { call, source: None };
    let told = |call, last| Order::Send(Frame::Vouch { call, source: Some(from(last)) });
    board.handle_frame(start, third, wish(0));
    board.handle_frame(start, third, wish(DIALLED | 5));
    assert_eq!(orders(&mut board), [], "a third has no part in it");
    board.handle_frame(start, receiver, wish(0));
    board.handle_frame(start, receiver, wish(0));
    assert_eq!(orders(&mut board), [(dialer, told(DIALLED | 5, 2))]);
    board.handle_frame(start, dialer, wish(DIALLED | 5));
    assert_eq!(orders(&mut board), [(receiver, told(0, 1))]);
    // Where somebody is, nobody tells us.
    board.handle_frame(start, dialer, Frame::Vouch { call: DIALLED | 5, source: Some(from(9)) });
    assert!(orders(&mut board).contains(&(dialer, Order::Close)));
}

#[test]
fn what_is_vouched_for_is_the_whole_address_as_ipv4_if_it_is() {
    for (seen, named) in [("2001:db8::5", "2001:db8::5"), ("::ffff:192.0.2.7", "192.0.2.7")] {
        let (start, mut board) = (start(), board());
        let (_, receiver) = two(&mut board, start);
        let dialer = board.connect(start, key(4), seen.parse().unwrap()).unwrap();
        board.handle_frame(start, dialer, knock(1, 2));
        orders(&mut board);
        board.handle_frame(start, dialer, Frame::Vouch { call: DIALLED | 1, source: None });
        let source = Some(named.parse().unwrap());
        assert_eq!(orders(&mut board), [(receiver, Order::Send(Frame::Vouch { call: 0, source }))]);
    }
}

#[test]
fn nobody_is_rung_who_is_not_attached() {
    let (start, mut board) = (start(), board());
    let (dialer, receiver) = two(&mut board, start);
    let refused = |number, reason| vec![(dialer, Order::Send(Frame::End { call: DIALLED | number, reason }))];
    board.handle_frame(start, dialer, knock(1, 9));
    assert_eq!(orders(&mut board), refused(1, EndReason::Unknown));
    board.disconnect(receiver);
    board.handle_frame(start, dialer, knock(2, 2));
    assert_eq!(orders(&mut board), refused(2, EndReason::Unknown));
    assert_eq!(board.attached(), 0);
}

#[test]
fn a_third_has_no_part_in_a_call() {
    let (start, mut board) = (start(), board());
    let (dialer, _) = two(&mut board, start);
    let third = board.connect(start, key(3), from(3)).unwrap();
    board.handle_frame(start, dialer, knock(5, 2));
    orders(&mut board);
    for call in [0, DIALLED | 5] {
        board.handle_frame(start, third, Frame::Note { call, note: vec![6] });
        board.handle_frame(start, third, Frame::End { call, reason: EndReason::Done });
    }
    assert_eq!(orders(&mut board), []);
}

#[test]
fn each_end_hears_when_the_other_is_gone_or_too_slow() {
    let (start, mut board) = (start(), board());
    let (dialer, receiver) = two(&mut board, start);
    board.handle_frame(start, dialer, knock(1, 2));
    board.handle_frame(start, dialer, knock(2, 2));
    orders(&mut board);
    board.handle_timeout(start + CALL_TIME - SWEEP_EVERY);
    assert_eq!(orders(&mut board), []);
    board.handle_timeout(start + CALL_TIME);
    let late = orders(&mut board);
    assert_eq!(late.len(), 4);
    assert!(
        late.contains(&(dialer, Order::Send(Frame::End { call: DIALLED | 2, reason: EndReason::TimedOut })))
    );
    board.handle_frame(start + CALL_TIME, dialer, knock(3, 2));
    orders(&mut board);
    board.disconnect(receiver);
    let gone = Frame::End { call: DIALLED | 3, reason: EndReason::Gone };
    assert_eq!(orders(&mut board), [(dialer, Order::Send(gone))]);
}

#[test]
fn who_is_attached_hears_that_we_are_there_after_the_silence_that_it_asked_for() {
    let (start, mut board) = (start(), board());
    let (dialer, receiver) = two(&mut board, start);
    board.handle_frame(start, dialer, Frame::Rest { seconds: 20 });
    board.handle_frame(start, receiver, Frame::Rest { seconds: 20 });
    // Who says something need not hear it before it has been silent for so long again.
    let spoke = start + Duration::from_secs(5);
    board.handle_frame(spoke, receiver, Frame::End { call: 7, reason: EndReason::Done });
    let mut heard = Vec::new();
    for second in 0..100 {
        board.handle_timeout(start + Duration::from_secs(second));
        let orders = orders(&mut board);
        heard.extend(
            orders.into_iter().filter(|(_, order)| *order != Order::Close).map(|order| (second, order)),
        );
    }
    let still = |second| (second, (receiver, Order::Send(Frame::Still)));
    assert_eq!(heard, [25, 45, 65, 85].map(still), "and who is not attached does not");
    board.handle_frame(start + Duration::from_secs(100), receiver, Frame::Rest { seconds: 0 });
    assert_eq!(board.poll_timeout().filter(|due| *due > start + Duration::from_secs(101)), None);
    board.handle_timeout(start + Duration::from_secs(300));
    assert_eq!(orders(&mut board), [], "nor who wants to hear nothing");
    assert_eq!(silence(1), Some(Duration::from_secs(15)));
    assert_eq!(silence(u16::MAX), Some(Duration::from_secs(120)));
}

#[test]
fn the_newer_attachment_of_a_key_replaces_the_older() {
    let (start, mut board) = (start(), board());
    let (dialer, older) = two(&mut board, start);
    let newer = board.connect(start, key(2), from(9)).unwrap();
    board.handle_frame(start, newer, Frame::Attach);
    assert_eq!(orders(&mut board)[0], (older, Order::Close));
    board.disconnect(older);
    board.handle_frame(start, dialer, knock(1, 2));
    assert!(matches!(orders(&mut board)[..], [(to, Order::Send(Frame::Knock { .. }))] if to == newer));
}

#[test]
fn floods_are_refused_by_key_by_address_and_by_receiver() {
    let (start, mut board) = (start(), board());
    let (dialer, _) = two(&mut board, start);
    for number in 0..20 {
        board.handle_frame(start, dialer, knock(number, 2));
    }
    let count = |orders: &[(ClientId, Order)]| {
        orders.iter().filter(|(_, order)| matches!(order, Order::Send(Frame::Knock { .. }))).count()
    };
    assert_eq!(count(&orders(&mut board)), 8, "a key's burst");
    let mut rung = 0;
    for seed in 10..100 {
        // Each under a key of its own, all from one address.
        let other = board.connect(start, key(seed), from(3)).unwrap();
        board.handle_frame(start, other, knock(1, 2));
        rung += count(&orders(&mut board));
    }
    assert_eq!(rung, Bounds::default().calls_per_receiver - 8, "what one receiver has to bear at a time");
    let more = (0..200).filter(|_| board.connect(start, key(200), from(3)).is_some()).count();
    assert_eq!(more, Bounds::default().clients_per_address - 90);
}

#[test]
fn who_breaks_the_rules_is_put_out() {
    let (start, mut board) = (start(), board());
    let (dialer, receiver) = two(&mut board, start);
    board.handle_frame(start, dialer, knock(1, 2));
    orders(&mut board);
    for _ in 0..=NOTES_PER_CALL {
        board.handle_frame(start, receiver, Frame::Note { call: 0, note: vec![0] });
    }
    let told = orders(&mut board);
    assert!(told.contains(&(receiver, Order::Close)));
    assert!(matches!(told.last(), Some((to, Order::Send(Frame::End { .. }))) if *to == dialer));
    for wrong in [Frame::Attached { stun_port: 1 }, Frame::Knock { call: 1, key: key(2), knock: vec![] }] {
        let other = board.connect(start, key(5), from(5)).unwrap();
        board.handle_frame(start, other, wrong);
        assert_eq!(orders(&mut board), [(other, Order::Close)]);
    }
}

#[test]
fn who_wants_nothing_is_put_out_and_who_is_attached_stays() {
    let (start, mut board) = (start(), board());
    let (dialer, _) = two(&mut board, start);
    assert_eq!(board.poll_timeout(), Some(start + SWEEP_EVERY));
    board.handle_timeout(start + IDLE);
    assert_eq!(orders(&mut board), [(dialer, Order::Close)]);
    board.handle_timeout(start + IDLE + SWEEP_EVERY);
    assert_eq!((board.poll_timeout(), board.attached()), (None, 1));
}

proptest! {
    /// Whatever clients send: nothing panics, nothing grows, orders are for those who are there.
    #[test]
    fn any_frames_from_anybody_leave_it_bounded(
        steps in proptest::collection::vec((0_u8..8, 0_u8..6, any::<u8>(), 0_u32..4, any::<bool>()), 0..200)
    ) {
        let start = start();
        let mut board = board();
        let mut clients = Vec::new();
        let mut now = start;
        for (what, who, other, number, dialled) in steps {
            now += Duration::from_millis(u64::from(other) * 20);
            let call = number | if dialled { DIALLED } else { 0 };
            let client = clients.get(usize::from(who)).copied();
            match (what, client) {
                (0, _) => clients.extend(board.connect(now, key(who), from(who))),
                (1, Some(id)) => board.handle_frame(now, id, Frame::Attach),
                (2, Some(id)) => {
                    board.handle_frame(now, id, Frame::Knock { call, key: key(other % 6), knock: vec![1] });
                }
                (3, Some(id)) => board.handle_frame(now, id, Frame::Note { call, note: vec![2] }),
                (4, Some(id)) => board.handle_frame(now, id, Frame::End { call, reason: EndReason::Done }),
                (6, Some(id)) => board.handle_frame(now, id, Frame::Vouch { call, source: None }),
                (7, Some(id)) => board.handle_frame(now, id, Frame::Rest { seconds: other.into() }),
                (5, Some(id)) if other > 200 => board.disconnect(id),
                _ => board.handle_timeout(now),
            }
            orders(&mut board);
            for call in board.calls.values() {
                prop_assert!(board.clients.contains_key(&call.dialer));
                prop_assert!(board.clients.contains_key(&call.receiver));
            }
            prop_assert!(board.stills.is_of(|id| board.clients.contains_key(&id)));
            for id in board.attached.values() {
                prop_assert!(board.clients.contains_key(id));
            }
        }
    }
}
