//! The protocol in virtual time. The seed of each run is printed, so that a failure can be repeated.

use std::net::SocketAddr;
use std::time::Duration;

use beacon::News;
use beacon::protocol::{Departure, Destination, DiscoveryConfig, Kind, Packet};

use crate::lan::{Lan, address, packet};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[test]
fn a_newcomer_finds_a_peer_within_20_ms_at_the_median_and_300_ms_in_99_of_100_runs() {
    let times = measure(1..=300, |lan| {
        lan.join();
        settle(lan);
        lan.join();
        lan.run_to(SECOND * 5, Lan::all_know_all).expect("they find each other")
    });

    assert!(quantile(&times, 0.5) <= 20 * MS, "median {:?}", quantile(&times, 0.5));
    assert!(quantile(&times, 0.99) <= 300 * MS, "p99 {:?}", quantile(&times, 0.99));
}

#[test]
fn with_30_percent_loss_each_way_peers_are_found_within_two_periods_in_99_of_100_runs() {
    let times = measure(1..=500, |lan| {
        lan.loss = 0.3;
        lan.join();
        settle(lan);
        lan.join();
        lan.run_to(SECOND * 30, |lan| lan.knows_all(1)).expect("they find each other")
    });

    assert!(quantile(&times, 0.99) <= 2 * SECOND, "p99 {:?}", quantile(&times, 0.99));
}

#[test]
fn a_newcomer_knows_a_hundred_peers_at_once_at_the_cost_of_bounded_answers() {
    let mut lan = Lan::new(7);
    for _ in 0..100 {
        lan.join();
    }
    lan.run(SECOND * 10);
    let before = lan.log.len();
    let newcomer = lan.join();

    let time = lan.run_to(SECOND, |lan| lan.knows_all(newcomer)).expect("all answer");
    lan.run(SECOND * 2);

    assert!(time <= 300 * MS, "{time:?}");
    let answers = lan.log[before..].iter().filter(|sent| packet(sent).kind == Kind::Answer).count();
    assert!((50..=150).contains(&answers), "{answers} answers");
}

#[test]
fn two_hundred_machines_that_start_at_once_all_find_each_other() {
    let mut lan = Lan::new(11);
    lan.loss = 0.05;
    for _ in 0..200 {
        lan.join();
    }

    let time = lan.run_to(SECOND * 10, Lan::all_know_all).expect("all are found");

    assert!(time <= 2 * SECOND, "{time:?}");
}

#[test]
fn a_hundred_peers_send_at_most_a_hundred_datagrams_a_period() {
    for copies in 1..=3 {
        let mut lan = Lan::new(13);
        lan.copies = copies;
        for _ in 0..100 {
            lan.join();
        }
        let settled = 10 * SECOND;
        lan.run(settled + 10 * SECOND);

        for second in 0..10 {
            let from = settled + SECOND * second;
            let datagrams = lan.datagrams(from, from + SECOND);
            assert!((20..=100).contains(&datagrams), "{copies} copies: {datagrams} in a second");
        }
    }
}

#[test]
fn nobody_is_reported_as_gone_while_a_tenth_of_the_datagrams_is_lost() {
    let mut lan = Lan::new(17);
    lan.loss = 0.1;
    lan.copies = 2;
    for _ in 0..20 {
        lan.join();
    }

    lan.run(SECOND * 120);

    assert!(lan.all_know_all());
    let left =
        lan.hosts.iter().flat_map(|host| &host.events).filter(|(_, event)| is_gone(event.news)).count();
    assert_eq!(left, 0);
}

#[test]
fn a_machine_that_vanishes_is_gone_after_its_missed_periods_and_back_when_it_is_heard() {
    let mut lan = Lan::new(19);
    lan.join();
    lan.join();
    lan.run(SECOND * 10);

    lan.hosts[1].is_up = false;
    let time = lan.run_to(SECOND * 20, |lan| lan.known(0) == 0).expect("it is missed");
    assert!(time >= 3 * SECOND && time <= 5 * SECOND, "{time:?}");

    lan.hosts[1].is_up = true;
    let time = lan.run_to(SECOND * 20, |lan| lan.knows_all(0)).expect("it is back");
    assert!(time <= 2 * SECOND, "{time:?}");
}

#[test]
fn a_goodbye_is_heard_at_once() {
    let mut lan = Lan::new(23);
    lan.join();
    lan.join();
    lan.run(SECOND * 10);

    lan.tell(1, |machine, _| machine.close());
    lan.run(10 * MS);

    let (_, last) = lan.hosts[0].events.last().expect("much was heard");
    assert_eq!((last.news, &last.payload[..]), (News::Left(Departure::Goodbye), &b"host 1"[..]));
    let sent = lan.log.len();
    lan.run(SECOND * 10);
    assert!(lan.log[sent..].iter().all(|sent| sent.from != address(1)), "it speaks after its goodbye");
}

#[test]
fn who_only_listens_hears_all_is_reported_by_nobody_and_gets_one_answer_a_question() {
    let mut lan = Lan::new(67);
    lan.copies = 2;
    for _ in 0..3 {
        lan.join();
    }
    lan.run(SECOND * 10);
    let before = lan.log.len();
    let listener = lan.join_listening();

    lan.run_to(SECOND, |lan| lan.knows_all(listener)).expect("all answer");
    lan.run(SECOND * 5);

    let said: Vec<_> = lan.log[before..].iter().filter(|sent| sent.from == address(listener)).collect();
    assert!(said.iter().all(|sent| packet(sent).kind == Kind::Seek), "it announces nothing");
    assert_eq!(said.len(), 6 * lan.copies);
    let answers = lan.log[before..].iter().filter(|sent| packet(sent).kind == Kind::Answer).count();
    assert_eq!(answers, 3, "those who have answered need not answer again");
    assert!((0..3).all(|host| !lan.knows(host, listener)));

    lan.tell(listener, |machine, now| machine.set_data(now, b"here").expect("it fits"));
    lan.run_to(50 * MS, Lan::all_know_all).expect("it is heard now");
    lan.tell(listener, |machine, _| machine.hide());
    lan.run(50 * MS);
    assert!((0..3).all(|host| !lan.knows(host, listener)));
    assert!(lan.knows_all(listener));

    let asked = lan.log.len();
    lan.tell(listener, |machine, now| machine.search(now));
    lan.run(SECOND);
    let answers = lan.log[asked..].iter().filter(|sent| packet(sent).kind == Kind::Answer).count();
    assert_eq!(answers, 3, "a new search is answered anew");
}

#[test]
fn a_network_that_goes_and_comes_back_is_searched_again() {
    let mut lan = Lan::new(29);
    lan.join();
    lan.join();
    lan.run(SECOND * 10);
    lan.tell(0, |machine, now| machine.set_links(now, Vec::new()));
    assert_eq!(
        lan.hosts[0].events.last().map(|(_, event)| event.news),
        Some(News::Left(Departure::LinkDown))
    );
    lan.run(SECOND * 10);

    let link = lan.link(0);
    lan.tell(0, |machine, now| machine.set_links(now, vec![link]));

    let time = lan.run_to(SECOND * 5, Lan::all_know_all).expect("they find each other");
    assert!(time <= 50 * MS, "{time:?}");
}

#[test]
fn a_machine_that_slept_asks_again_and_does_not_report_everybody_as_gone() {
    let mut lan = Lan::new(31);
    for _ in 0..5 {
        lan.join();
    }
    lan.run(SECOND * 10);
    lan.hosts[0].is_up = false;
    lan.run(SECOND * 300);
    let before = lan.hosts[0].events.len();

    lan.hosts[0].is_up = true;
    lan.run(SECOND * 5);

    let news = &lan.hosts[0].events[before..];
    assert!(news.iter().all(|(_, event)| !is_gone(event.news)), "{news:?}");
    assert!(lan.all_know_all());
}

#[test]
fn forged_beacons_without_end_hide_no_honest_newcomer() {
    let mut lan = Lan::new(37);
    lan.join();
    lan.run(SECOND * 3);
    flood(&mut lan, SECOND);

    let newcomer = lan.join();
    let found = |lan: &Lan| lan.knows(0, newcomer) && lan.knows(newcomer, 0);
    let mut waited = Duration::ZERO;
    while !found(&lan) {
        flood(&mut lan, 20 * MS);
        waited += 20 * MS;
        assert!(waited <= 2 * SECOND, "not found amid forged beacons");
    }
}

#[test]
fn forged_questions_get_bounded_answers_none_larger_than_the_question_and_64_bytes() {
    let mut lan = Lan::new(41);
    lan.join();
    lan.run(SECOND * 3);
    let before = lan.log.len();

    flood(&mut lan, 5 * SECOND);

    let answers: Vec<_> = lan.log[before..].iter().filter(|sent| packet(sent).kind == Kind::Answer).collect();
    assert!(answers.len() <= 5 * 20, "{} answers in five seconds", answers.len());
    let question = forged(0).len();
    assert!(answers.iter().all(|sent| sent.bytes.len() <= question + 64));
}

#[test]
fn replayed_datagrams_change_nothing_while_the_peer_is_there() {
    let mut lan = Lan::new(43);
    lan.join();
    lan.join();
    lan.run(SECOND * 3);
    lan.tell(1, |machine, now| machine.set_data(now, b"newer").expect("it fits"));
    lan.run(SECOND * 3);
    let old: Vec<_> =
        lan.log.iter().filter(|sent| sent.from == address(1)).map(|sent| sent.bytes.clone()).collect();

    for bytes in &old {
        lan.deliver(0, address(1), bytes);
    }
    lan.run(SECOND * 3);

    let changes = lan.hosts[0].events.iter().filter(|(_, event)| event.news == News::Changed).count();
    assert_eq!(changes, 1);
}

#[test]
fn equal_seeds_give_equal_runs() {
    let trace = |seed| {
        let mut lan = Lan::new(seed);
        lan.loss = 0.2;
        for _ in 0..10 {
            lan.join();
        }
        lan.run(SECOND * 5);
        lan.log.into_iter().map(|sent| (sent.at, sent.from, sent.bytes)).collect::<Vec<_>>()
    };

    assert_eq!(trace(47), trace(47));
    assert_ne!(trace(47), trace(48));
}

#[test]
fn more_than_four_newcomers_get_one_answer_together() {
    let mut lan = Lan::new(53);
    lan.join();
    lan.run(SECOND * 10);
    let before = lan.log.len();

    for number in 0..30 {
        let from = SocketAddr::from(([10, 9, 9, number], 5000));
        lan.deliver(0, from, &forged(u64::from(number)));
    }
    lan.run(SECOND / 2);

    let answers = lan.log[before..].iter().filter(|sent| packet(sent).kind == Kind::Answer);
    let (together, alone): (Vec<_>, Vec<_>) =
        answers.partition(|sent| sent.destination == Destination::Everybody);
    assert!(alone.len() <= 8 && (1..=3).contains(&together.len()), "{} {}", alone.len(), together.len());
}

#[test]
fn peers_with_a_short_and_a_long_period_get_along() {
    let mut lan = Lan::new(59);
    lan.join_with(DiscoveryConfig { period: 20 * MS, ..DiscoveryConfig::default() });
    lan.join_with(DiscoveryConfig { period: 60 * SECOND, ..DiscoveryConfig::default() });

    lan.run(SECOND * 200);

    assert!(lan.all_know_all());
    let gone = lan.hosts.iter().flat_map(|host| &host.events).any(|(_, event)| is_gone(event.news));
    assert!(!gone);
}

/// Five thousand forged questions a second from made-up senders, spread over `time`.
fn flood(lan: &mut Lan, time: Duration) {
    let count = time.as_micros() / 200;
    for _ in 0..count {
        let chance = lan.draw();
        let [a, b, port_high, port_low, ..] = chance.to_be_bytes();
        let from = SocketAddr::from(([10, 66, a, b], u16::from_be_bytes([port_high, port_low]) | 1));
        lan.deliver(0, from, &forged(chance));
        lan.run(Duration::from_micros(200));
    }
}

fn forged(number: u64) -> Vec<u8> {
    let id = number.to_be_bytes();
    let packet =
        Packet { kind: Kind::Ask, sequence: 1, interval: SECOND, id: &id, data: b"forged", known: &[] };
    packet.encode().expect("it is small")
}

fn measure(seeds: std::ops::RangeInclusive<u64>, run: impl Fn(&mut Lan) -> Duration) -> Vec<Duration> {
    let mut times: Vec<_> = seeds.map(|seed| run(&mut Lan::new(seed))).collect();
    times.sort();
    times
}

/// Lets machines get through their search, and a random part of a period more.
fn settle(lan: &mut Lan) {
    let part = Duration::from_micros(lan.draw() % 1_000_000);
    lan.run(SECOND * 5 + part);
}

fn quantile(sorted: &[Duration], part: f64) -> Duration {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "few"
    )]
    let index = ((sorted.len() - 1) as f64 * part).ceil() as usize;
    sorted[index]
}

fn is_gone(news: News) -> bool {
    matches!(news, News::Left(_))
}
