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
    assert_eq!(first, [Begin { attempt: 0, road }]);
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

#[test]
fn the_leader_goes_by_each_hole_once_and_the_follower_waits_there() {
    let start = start();
    let mut leader = Call::new(start, true, &[]);
    assert!(!leader.is_tried(start, addr(9), 3, false));
    let begin = leader.handle_hole(start, Scheme::Quic, addr(9), Some(3)).unwrap();
    assert!(leader.is_tried(start, addr(9), 3, true) && !leader.is_tried(start, addr(9), 4, true));
    leader.handle_punched();
    assert!(!leader.may_be_asked());
    leader.attempt_failed(start, begin.attempt, false, &"too slow");
    assert!(!leader.is_tried(start, addr(9), 3, true) && leader.is_hopeless(false));

    let mut follower = Call::new(start, false, &[]);
    assert!(follower.is_hopeless(false));
    assert_eq!(follower.handle_hole(start, Scheme::Quic, addr(8), Some(3)), None);
    follower.handle_punched();
    assert!(follower.may_be_asked() && !follower.is_hopeless(false));
    let failures = follower.failures(start, [(RendezvousRoad::UdpPunch { v6: false }, "late".to_owned())]);
    assert_eq!(failures.last().unwrap().road, RendezvousRoad::Incoming);
    assert_eq!(failures.len(), 2);
}

#[test]
fn who_may_be_dialled_waits_until_the_deadline() {
    let call = Call::new(start(), true, &[]).dialable(true);
    assert!(!call.is_hopeless(false));
}
