use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn place(text: &str) -> ListenEndpoint {
    text.parse().unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// As a service listens by default.
fn usual() -> [ListenEndpoint; 4] {
    ["quic://0.0.0.0:5000", "tcp://0.0.0.0:5000", "quic://[::]:5000", "tcp://[::]:5000"].map(place)
}

fn forwarding(now: Instant) -> Forwarding {
    let mut forwarding = Forwarding::default();
    assert!(forwarding.set_places(now, &usual()).is_empty());
    forwarding
}

/// All that is asked for now.
fn asked(forwarding: &mut Forwarding, now: Instant) -> Vec<ListenEndpoint> {
    std::iter::from_fn(|| forwarding.poll_ask(now)).collect()
}

#[test]
fn listeners_of_a_family_are_asked_for_one_after_the_other() {
    let now = start();
    let mut forwarding = forwarding(now);
    let [quic4, tcp4, quic6, tcp6] = usual();

    assert_eq!(asked(&mut forwarding, now), [quic4, quic6]);
    assert_eq!(forwarding.poll_timeout(), None, "answers are awaited, not timers");
    let seen = addr("198.51.100.2:5000");
    assert_eq!(forwarding.handle_lease(quic4, Some(seen)), Some(Change::Mapped(seen)));
    assert_eq!(asked(&mut forwarding, now), [tcp4]);
    assert!(!forwarding.is_settled());
    assert_eq!(forwarding.handle_lease(tcp4, Some(seen)), Some(Change::Mapped(seen)));
    forwarding.handle_needless(quic6);
    assert_eq!(asked(&mut forwarding, now), [tcp6]);
    forwarding.handle_needless(tcp6);

    assert!(forwarding.is_settled() && asked(&mut forwarding, now).is_empty());
    assert_eq!(forwarding.poll_timeout(), None);
}

#[test]
fn without_a_router_one_question_a_family_is_asked_ever_more_rarely() {
    let mut now = start();
    let mut forwarding = Forwarding::default();
    forwarding.set_places(now, &usual()[..2]);
    let mut pauses = Vec::new();
    for round in 0..8 {
        let asked = asked(&mut forwarding, now);
        assert_eq!(asked.len(), 1, "the other would come to the same");
        assert_eq!(forwarding.handle_failure(now, asked[0]), round == 0, "told once");
        assert!(forwarding.is_settled());
        let due = forwarding.poll_timeout().unwrap();
        assert_eq!(forwarding.poll_ask(due - Duration::from_millis(1)), None);
        pauses.push(due.duration_since(now).as_secs() / 60);
        now = due;
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60, 60]);
}

#[test]
fn a_port_that_is_refused_does_not_keep_the_others_back() {
    let now = start();
    let mut forwarding = Forwarding::default();
    let [quic, tcp, ..] = usual();
    let second = place("quic://0.0.0.0:6000");
    forwarding.set_places(now, &[quic, tcp, second]);
    assert_eq!(asked(&mut forwarding, now), [quic]);
    forwarding.handle_lease(quic, Some(addr("198.51.100.2:5000")));
    assert_eq!(asked(&mut forwarding, now), [tcp]);
    assert!(forwarding.handle_failure(now, tcp));
    assert_eq!(asked(&mut forwarding, now), [second]);
}

#[test]
fn what_a_lease_loses_is_told_and_so_is_what_it_gets_back() {
    let now = start();
    let mut forwarding = forwarding(now);
    let quic = forwarding.poll_ask(now).unwrap();
    let [before, after] = ["198.51.100.2:5000", "198.51.100.3:6000"].map(addr);
    assert_eq!(forwarding.handle_lease(quic, Some(before)), Some(Change::Mapped(before)));
    assert_eq!(forwarding.handle_lease(quic, Some(before)), None);
    assert_eq!(forwarding.handle_lease(quic, None), Some(Change::Lost(before)));
    assert_eq!(forwarding.handle_lease(quic, None), None);
    assert_eq!(forwarding.handle_lease(quic, Some(after)), Some(Change::Mapped(after)));
    assert_eq!(forwarding.handle_lease(quic, Some(before)), Some(Change::Mapped(before)), "moved");
    assert_eq!(forwarding.handle_end(now, quic), Some(before));
    assert_eq!(forwarding.poll_ask(now), Some(quic), "and asked for anew");
}

#[test]
fn addresses_that_lead_nowhere_are_not_told_of() {
    let now = start();
    for nonsense in
        ["127.0.0.1:5000", "0.0.0.0:5000", "224.0.0.1:5000", "255.255.255.255:5000", "169.254.1.1:5000"]
            .into_iter()
            .chain([
                "198.51.100.2:0",
                "[::1]:5000",
                "[fe80::1]:5000",
                "[ff02::1]:5000",
                "[::ffff:10.0.0.1]:1",
            ])
    {
        let mut forwarding = forwarding(now);
        let quic = forwarding.poll_ask(now).unwrap();
        assert_eq!(forwarding.handle_lease(quic, Some(addr(nonsense))), None, "{nonsense}");
    }
}

#[test]
fn in_another_network_and_on_request_all_that_wait_are_asked_for_at_once() {
    let now = start();
    let mut forwarding = forwarding(now);
    for failed in asked(&mut forwarding, now) {
        forwarding.handle_failure(now, failed);
    }
    assert!(forwarding.is_settled() && asked(&mut forwarding, now).is_empty());

    forwarding.handle_request(now);
    assert!(!forwarding.is_settled());
    for failed in asked(&mut forwarding, now) {
        assert!(!forwarding.handle_failure(now, failed), "nothing new");
    }
    assert!(forwarding.is_settled());

    forwarding.handle_network_change(now);
    let again = asked(&mut forwarding, now);
    assert_eq!(again.len(), 2);
    assert!(forwarding.handle_failure(now, again[0]), "news of another network");
}

#[test]
fn listeners_come_and_go_and_there_are_not_too_many() {
    let now = start();
    let mut forwarding = forwarding(now);
    let [quic, tcp, ..] = usual();
    assert_eq!(asked(&mut forwarding, now)[0], quic);
    let gone = forwarding.set_places(now, &[tcp]);
    assert_eq!(gone.len(), 3);
    assert_eq!(forwarding.handle_lease(quic, Some(addr("198.51.100.2:1"))), None, "an answer too late");
    assert!(!forwarding.handle_failure(now, quic));
    assert_eq!(asked(&mut forwarding, now), [tcp]);

    let many: Vec<_> = (1..100).map(|port| place(&format!("tcp://0.0.0.0:{port}"))).collect();
    forwarding.set_places(now, &many);
    assert_eq!(forwarding.places.len(), MAX_PLACES);
}

proptest! {
    /// Whatever happens in whatever order, nothing is asked for twice at a time, timers never lie in the past, and what was told adds
    /// up to what is held.
    #[test]
    fn any_order_of_events_is_taken(steps in prop::collection::vec((0_u8..8, 0_usize..4, 0_u64..4_000), 0..60)) {
        let mut now = start();
        let mut forwarding = forwarding(now);
        let (mut asking, mut told) = (Vec::new(), BTreeMap::new());
        for (step, which, seconds) in steps {
            let one = usual()[which];
            now += Duration::from_secs(seconds);
            match step {
                0 | 1 => {
                    while let Some(place) = forwarding.poll_ask(now) {
                        prop_assert!(!asking.contains(&place));
                        asking.push(place);
                    }
                    prop_assert!(forwarding.poll_timeout().is_none_or(|due| due > now));
                }
                2 | 3 if asking.contains(&one) || told.contains_key(&one) => {
                    asking.retain(|place| *place != one);
                    let leads = (seconds % 3 > 0).then(|| addr(&format!("198.51.100.2:{}", 1 + seconds)));
                    match forwarding.handle_lease(one, leads) {
                        Some(Change::Mapped(at)) => { told.insert(one, Some(at)); }
                        Some(Change::Lost(at)) => prop_assert_eq!(told.insert(one, None), Some(Some(at))),
                        None => { told.entry(one).or_insert(None); }
                    }
                    prop_assert_eq!(told[&one], leads);
                }
                4 if asking.contains(&one) => {
                    asking.retain(|place| *place != one);
                    forwarding.handle_failure(now, one);
                }
                5 => {
                    forwarding.handle_network_change(now);
                    asking.clear();
                }
                6 => forwarding.handle_request(now),
                7 => {
                    let places: Vec<_> = usual().into_iter().filter(|place| *place != one).collect();
                    for gone in forwarding.set_places(now, &places) {
                        asking.retain(|place| *place != gone);
                        told.remove(&gone);
                    }
                    forwarding.set_places(now, &usual());
                }
                _ => {}
            }
        }
    }
}
