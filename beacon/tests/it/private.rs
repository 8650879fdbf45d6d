//! Private groups in virtual time: members among themselves, and what others can do to them.

use std::net::SocketAddr;
use std::time::Duration;

use beacon::protocol::{Departure, DiscoveryConfig, Kind, MAX_PACKET_BYTES, Packet};
use beacon::{GroupSecret, News};

use crate::lan::{Lan, address};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[test]
fn members_find_each_other_as_fast_as_anyone_and_others_hear_nothing() {
    let mut times = Vec::new();
    for seed in 1..=100 {
        let mut lan = Lan::new(seed);
        let ada = lan.join_with(member());
        let (plain, other) = (lan.join(), lan.join_with(with_secret(9)));
        lan.run(SECOND * 5);
        let bob = lan.join_with(member());

        let found = |lan: &Lan| lan.knows(ada, bob) && lan.knows(bob, ada);
        times.push(lan.run_to(SECOND * 5, found).expect("they find each other"));

        lan.run(SECOND * 5);
        assert_eq!((lan.known(ada), lan.known(bob)), (1, 1));
        assert_eq!((lan.known(plain), lan.known(other)), (0, 0));
        assert!(lan.hosts[other].machine.refusals().not_of_group > 0);
    }
    times.sort();
    assert!(times[50] <= 20 * MS && times[99] <= 300 * MS, "{times:?}");
}

#[test]
fn nothing_of_who_or_what_is_on_the_wire() {
    let mut lan = Lan::new(2);
    let ada = lan.join_with(member());
    lan.join_with(member());
    lan.run(SECOND * 30);
    lan.tell(ada, |machine, now| machine.set_data(now, b"a secret place").expect("it fits"));
    lan.run(SECOND * 5);
    lan.tell(ada, |machine, _| machine.close());

    let mut sizes: Vec<_> = lan.log.iter().map(|sent| sent.bytes.len()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    assert_eq!(sizes.len(), 2, "questions have one size and all else another: {sizes:?}");
    assert!(sizes.iter().all(|&size| size <= MAX_PACKET_BYTES));
    for (number, sent) in lan.log.iter().enumerate() {
        assert!(Packet::decode(&sent.bytes).is_err());
        for text in [&b"host 0"[..], b"a secret place"] {
            assert!(!sent.bytes.windows(text.len()).any(|window| window == text));
        }
        // Nothing that could be followed: no eight bytes are ever said twice by one beacon.
        let earlier = lan.log[..number].iter().rfind(|earlier| earlier.bytes != sent.bytes);
        let repeated = earlier.is_some_and(|earlier| {
            earlier.bytes[4..].windows(8).any(|part| sent.bytes[4..].windows(8).any(|it| it == part))
        });
        assert!(!repeated, "datagram {number}");
    }
}

#[test]
fn recordings_are_not_believed_while_the_member_is_there_nor_after_it_has_left() {
    for wrong_by in [0, 3600] {
        let mut lan = Lan::new(3);
        let ada = lan.join_with(member());
        let bob = lan.join_with(member());
        lan.hosts[bob].clock_ahead = Duration::from_secs(wrong_by);
        lan.run(SECOND * 10);
        assert!(lan.knows(ada, bob), "whatever their clocks say");
        lan.tell(bob, |machine, now| machine.set_data(now, b"newer").expect("it fits"));
        lan.run(SECOND * 3);
        let recorded = said_by(&lan, bob);

        let events = lan.hosts[ada].events.len();
        for bytes in &recorded {
            lan.deliver(ada, address(bob), bytes);
        }
        let news: Vec<_> = lan.hosts[ada].events[events..].iter().map(|(_, event)| event.news).collect();
        assert_eq!(news, []);

        lan.tell(bob, |machine, _| machine.close());
        lan.run(MS * 10);
        assert!(!lan.knows(ada, bob));
        lan.hosts[bob].is_up = false;
        let recorded = said_by(&lan, bob);
        for pause in [MS, SECOND, SECOND * 20, SECOND * 60, SECOND * 600, SECOND * 3600] {
            lan.run(pause);
            for bytes in &recorded {
                lan.deliver(ada, address(bob), bytes);
            }
            lan.run(SECOND * 3);
            assert!(!lan.knows(ada, bob), "{pause:?} after it left, its clock {wrong_by} s ahead");
        }
    }
}

#[test]
fn a_newcomer_does_not_believe_recordings_of_those_that_left_before() {
    for wrong_by in [0, 3600] {
        let mut lan = Lan::new(5);
        let bob = lan.join_with(member());
        lan.hosts[bob].clock_ahead = Duration::from_secs(wrong_by);
        lan.run(SECOND * 10);
        lan.tell(bob, |machine, _| machine.close());
        lan.hosts[bob].is_up = false;
        let recorded = said_by(&lan, bob);
        lan.run(SECOND * 5);

        let ada = lan.join_with(member());
        for _ in 0..20 {
            for bytes in &recorded {
                lan.deliver(ada, address(bob), bytes);
            }
            lan.run(SECOND);
        }

        assert!(!lan.knows(ada, bob));
        assert!(lan.hosts[ada].events.is_empty());
        assert!(lan.hosts[ada].machine.refusals().not_fresh > 0);
        // Each recording would like an answer; one question in two seconds is what they get.
        let asked =
            lan.log.iter().filter(|sent| sent.from == address(ada) && sent.bytes.len() > 1000).count();
        assert!(asked <= 6 + 11, "{asked} questions");
    }
}

#[test]
fn who_passes_words_on_from_elsewhere_is_not_taken_for_their_speaker() {
    let mut lan = Lan::new(7);
    let (ada, bob) = (lan.join_with(member()), lan.join_with(member()));
    let liar = SocketAddr::from(([10, 66, 6, 6], 5000));
    lan.run(MS * 20);
    for sent in 0..lan.log.len() {
        let bytes = lan.log[sent].bytes.clone();
        lan.deliver(ada, liar, &bytes);
    }
    lan.run(SECOND * 5);

    assert!(lan.knows(ada, bob));
    assert!(lan.hosts[ada].events.iter().all(|(_, event)| event.source != liar));
    assert!(lan.hosts[ada].machine.refusals().passed_on > 0);
}

#[test]
fn forged_and_plain_beacons_are_not_heard_and_do_not_keep_members_apart() {
    let mut lan = Lan::new(11);
    let ada = lan.join_with(member());
    lan.run(SECOND * 3);
    let real = lan.log[0].bytes.clone();
    for number in 0..5_000_u64 {
        let chance = lan.draw();
        let mut forged = real.clone();
        let at = usize::try_from(chance % 1000).expect("small") % forged.len();
        forged[at] ^= 1;
        // As if they came from the member who is about to come.
        lan.deliver(ada, address(1), &forged);
        if number % 50 == 0 {
            let plain = Packet {
                kind: Kind::Announce,
                sequence: 1,
                interval: SECOND,
                id: &chance.to_be_bytes(),
                data: b"plain",
                known: &[],
            };
            lan.deliver(ada, address(1), &plain.encode().expect("small"));
        }
        lan.run(Duration::from_micros(200));
    }
    let bob = lan.join_with(member());

    lan.run_to(2 * SECOND, |lan| lan.knows(ada, bob)).expect("they find each other");
    assert_eq!(lan.hosts[ada].machine.refusals().not_of_group, 5_100);
}

#[test]
fn members_whose_clocks_are_wrong_or_missing_find_each_other_all_the_same() {
    let mut lan = Lan::new(13);
    let clocks = [0, 1, 40, 3600, 1_000_000_000];
    for ahead in clocks {
        let number = lan.join_with(member());
        lan.hosts[number].clock_ahead = Duration::from_secs(ahead);
    }
    let without = lan.join_with(member());
    lan.hosts[without].has_clock = false;

    let time = lan.run_to(SECOND * 10, Lan::all_know_all).expect("they find each other");
    assert!(time <= 3 * SECOND, "{time:?}");

    lan.run(SECOND * 100);
    let late = lan.join_with(member());
    lan.hosts[late].clock_ahead = Duration::from_secs(7200);
    let time = lan.run_to(SECOND * 10, Lan::all_know_all).expect("they find the newcomer");
    assert!(time <= SECOND, "{time:?}");
}

#[test]
fn clocks_that_jump_lose_nobody() {
    let mut lan = Lan::new(17);
    for _ in 0..5 {
        lan.join_with(member());
    }
    lan.run(SECOND * 10);
    for ahead in [3600, 0, 86_400 * 365, 40, 0] {
        lan.hosts[2].clock_ahead = Duration::from_secs(ahead);
        lan.run(SECOND * 20);
        assert!(lan.all_know_all());
    }
    let gone = lan.hosts.iter().flat_map(|host| &host.events);
    assert_eq!(gone.filter(|(_, event)| matches!(event.news, News::Left(_))).count(), 0);

    // And who has jumped believes a newcomer still, though no sooner than by an answer of its own.
    lan.join_with(member());
    lan.run_to(SECOND * 5, Lan::all_know_all).expect("they find the newcomer");
}

#[test]
fn two_hundred_members_that_start_at_once_all_find_each_other() {
    let mut lan = Lan::new(19);
    lan.loss = 0.05;
    for _ in 0..200 {
        lan.join_with(member());
    }

    let time = lan.run_to(SECOND * 20, Lan::all_know_all).expect("all are found");

    assert!(time <= 3 * SECOND, "{time:?}");
}

#[test]
fn a_member_that_only_listens_is_answered_once_a_question_and_reported_by_nobody() {
    let mut lan = Lan::new(29);
    lan.copies = 2;
    let (ada, bob) = (lan.join_with(member()), lan.join_with(member()));
    lan.run(SECOND * 5);
    let listener = lan.join_listening_with(member());

    lan.run_to(SECOND, |lan| lan.knows_all(listener)).expect("both answer");
    lan.run(SECOND * 5);

    assert!(!lan.knows(ada, listener) && !lan.knows(bob, listener));
    let refusals = lan.hosts[ada].machine.refusals();
    assert_eq!((refusals.not_fresh, refusals.passed_on, refusals.not_of_group), (0, 0, 0));
}

#[test]
fn a_goodbye_is_believed_once_and_only_from_a_member() {
    let mut lan = Lan::new(23);
    let (ada, bob) = (lan.join_with(member()), lan.join_with(member()));
    let stranger = lan.join_with(with_secret(9));
    lan.run(SECOND * 5);
    lan.tell(stranger, |machine, _| machine.close());
    let goodbye = lan.log.last().expect("it was just said").bytes.clone();
    lan.deliver(ada, address(bob), &goodbye);
    assert!(lan.knows(ada, bob));

    lan.tell(bob, |machine, _| machine.close());
    lan.run(MS * 10);

    let (_, last) = lan.hosts[ada].events.last().expect("much was heard");
    assert_eq!((last.news, &last.payload[..]), (News::Left(Departure::Goodbye), &b"host 1"[..]));
}

fn said_by(lan: &Lan, number: usize) -> Vec<Vec<u8>> {
    lan.log.iter().filter(|sent| sent.from == address(number)).map(|sent| sent.bytes.clone()).collect()
}

fn member() -> DiscoveryConfig {
    with_secret(1)
}

fn with_secret(secret: u8) -> DiscoveryConfig {
    DiscoveryConfig { secret: Some(GroupSecret::new([secret; 32])), ..DiscoveryConfig::default() }
}
