use std::time::Duration;

use super::*;

#[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
fn start() -> Instant {
    Instant::now()
}

const MS: Duration = Duration::from_millis(1);

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 345))
}

fn listeners() -> [(Scheme, SocketAddr); 2] {
    [(Scheme::Quic, addr(1)), (Scheme::Tcp, addr(2))]
}

fn dialled(call: &mut Call, now: Instant) -> Vec<Begin> {
    std::iter::from_fn(|| call.poll_dial(now)).collect()
}

#[test]
fn listeners_are_dialled_one_after_the_other_and_again_if_they_fail() {
    let start = start();
    let mut call = Call::new(start, true, &listeners());
    let first = dialled(&mut call, start);
    let road = RendezvousRoad::Listener { scheme: Scheme::Quic, remote: addr(1) };
    assert_eq!(first, [Begin { attempt: 0, road, via: None }]);
    assert_eq!(call.poll_timeout(), Some(start + 250 * MS));
    call.attempt_failed(start + 10 * MS, 0, false, &"closed");
    assert_eq!(dialled(&mut call, start + 109 * MS), []);
    let again = dialled(&mut call, start + 110 * MS);
    assert_eq!(again.iter().map(|begin| begin.road).collect::<Vec<_>>(), [road]);
    // Later each time, at most two seconds.
    let mut now = start + 110 * MS;
    let mut waits = Vec::new();
    let mut attempt = again[0].attempt;
    for _ in 0..6 {
        call.attempt_failed(now, attempt, false, &"closed");
        let others = dialled(&mut call, now);
        assert!(others.iter().all(|begin| begin.road != road));
        let next = (1..4_000).map(|wait| now + wait * MS).find_map(|at| {
            let begun = dialled(&mut call, at);
            begun.iter().find(|begin| begin.road == road).map(|begin| (at, begin.attempt))
        });
        let (at, number) = next.expect("dialled again");
        waits.push((at - now).as_millis());
        (now, attempt) = (at, number);
    }
    assert_eq!(waits, [200, 400, 800, 1_600, 2_000, 2_000]);
}

#[test]
fn somebody_else_is_not_dialled_again() {
    let start = start();
    let mut call = Call::new(start, true, &listeners()[..1]);
    assert_eq!(dialled(&mut call, start).len(), 1);
    assert!(!call.is_hopeless(false));
    call.attempt_failed(start, 0, true, &"another key");
    assert!(call.poll_timeout().is_none() && call.is_hopeless(false) && !call.is_hopeless(true));
    let failures = call.failures(start + MS, []);
    assert_eq!(failures.len(), 1, "{failures:?}");
}

#[test]
fn no_more_connections_than_a_meeting_may_have() {
    let start = start();
    let mut call = Call::new(start, true, &listeners()[..1]);
    let (mut now, mut count) = (start, 0);
    while let Some(begin) = call.poll_dial(now) {
        count += 1;
        call.attempt_failed(now, begin.attempt, false, &"closed");
        now = call.poll_timeout().unwrap_or(now);
    }
    assert_eq!(count, MAX_ATTEMPTS);
    assert!(call.is_hopeless(false));
}

fn way(last: u8, socket: usize) -> UdpSource {
    UdpSource { socket, addr: addr(last) }
}

#[test]
fn the_leader_goes_by_each_way_once_and_the_follower_waits_there() {
    let start = start();
    let mut leader = Call::new(start, true, &[]);
    let Found::Dial(begin) = leader.handle_way(start, way(9, 3), false) else { panic!("it leads") };
    assert_eq!((begin.attempt, begin.via), (0, Some(3)));
    assert_eq!(leader.handle_way(start, way(9, 3), true), Found::Nothing);
    assert!(matches!(leader.handle_way(start, way(9, 4), true), Found::Dial(Begin { attempt: 1, .. })));
    leader.handle_punched();
    assert!(!leader.comes_by_hole(true));
    leader.attempt_failed(start, 0, false, &"too slow");
    leader.attempt_failed(start, 1, false, &"too slow");
    assert!(leader.is_hopeless(false));
    assert!(matches!(leader.handle_way(start, way(9, 3), true), Found::Dial(_)), "once it has failed");

    let mut follower = Call::new(start, false, &[]);
    assert!(follower.is_hopeless(false) && !follower.comes_by_hole(false) && follower.comes_by_hole(true));
    assert_eq!(follower.handle_way(start, way(8, 3), false), Found::Asked);
    follower.handle_punched();
    assert!(follower.comes_by_hole(false) && !follower.is_hopeless(false));
    let failures = follower.failures(start, [(RendezvousRoad::UdpPunch { v6: false }, "late".to_owned())]);
    assert_eq!(failures.last().unwrap().road, RendezvousRoad::Incoming);
    assert_eq!(failures.len(), 2);
}

#[test]
fn what_goes_over_a_relay_begins_a_quarter_of_a_second_apart() {
    let start = start();
    let mut call = Call::new(start, true, &[]);
    call.add_relay(7);
    assert!(matches!(call.handle_way(start, way(9, 7), true), Found::Dial(_)));
    for again in [false, true] {
        assert_eq!(call.handle_way(start + MS, way(8, 7), again), Found::Nothing, "held back");
    }
    assert!(matches!(call.handle_way(start + MS, way(8, 3), true), Found::Dial(_)), "no relay");
    assert_eq!(call.poll_timeout(), Some(start + 250 * MS));
    assert_eq!(call.poll_released(start + 249 * MS), None);
    let begin = call.poll_released(start + 250 * MS).unwrap();
    assert_eq!((begin.road, begin.via), (punched(Scheme::Quic, addr(8)), Some(7)));
    assert_eq!((call.poll_released(start + 999 * MS), call.poll_timeout()), (None, None));
}

#[test]
fn who_may_be_dialled_waits_until_the_deadline() {
    let call = Call::new(start(), true, &[]).dialable(true);
    assert!(!call.is_hopeless(false));
}
