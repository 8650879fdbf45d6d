use super::*;
use crate::testing::epoch;

#[test]
fn a_connection_that_the_follower_dialled_is_taken_by_both() {
    let mut pair = Pair::new();
    let (dialled, accepted) = pair.connect(1, 0);
    pair.exchange(1, dialled, accepted);
    assert_eq!(pair.sides[1].poll_event(), Some(TcpPunchEvent::Punched(dialled)));
    assert_eq!(pair.sides[0].poll_event(), Some(TcpPunchEvent::Punched(accepted)));
}

#[test]
fn addresses_that_come_late_are_dialled_and_nothing_is_hopeless_before() {
    let keys = PunchKeys::derive(b"secret", b"a", b"b").unwrap();
    let (now, mut puncher) =
        (epoch(), TcpPuncher::new(epoch(), &[], &[], keys, Seed::from(7)).more_to_come());
    puncher.handle_timeout(now);
    assert_eq!((puncher.poll_event(), puncher.poll_dial()), (None, None));
    let host = |address: &str| MappedSocketAddr::host(address.parse().unwrap());
    let (ours, theirs) = ([host("198.51.100.1:1")], [host("192.0.2.1:2")]);
    puncher.learn(now, &ours, &theirs, true);
    puncher.learn(now, &ours, &theirs, false);
    puncher.handle_timeout(now);
    assert_eq!(puncher.poll_dial().map(|dial| dial.remote), Some(theirs[0].addr));
    assert_eq!((puncher.poll_event(), puncher.poll_dial()), (None, None), "once");
    puncher.learn(now, &ours, &[], false);
    assert_eq!(puncher.poll_event(), Some(TcpPunchEvent::Hopeless(Obstacle::NoAddress)));
}

#[test]
fn of_two_connections_both_take_the_one_that_the_leader_chose() {
    let mut pair = Pair::new();
    let leader = usize::from(!pair.sides[0].keys.leads());
    let first = pair.connect(leader, 1 - leader);
    let second = pair.connect(1 - leader, leader);
    pair.exchange(1 - leader, second.0, second.1);
    pair.exchange(leader, first.0, first.1);
    assert_eq!(pair.sides[leader].poll_event(), Some(TcpPunchEvent::Punched(second.1)));
    assert_eq!(pair.sides[1 - leader].poll_event(), Some(TcpPunchEvent::Punched(second.0)));
    assert_eq!(pair.sides.each_mut().map(TcpPuncher::poll_event), [None, None]);
}

#[test]
fn a_stranger_that_connects_is_closed_and_the_peer_still_gets_through() {
    let mut pair = Pair::new();
    let id = pair.sides[0].handle_accepted(pair.now, "203.0.113.66:6".parse().unwrap()).unwrap();
    pair.sides[0].handle_bytes(id, &[7; 16]);
    pair.sides[0].handle_bytes(id, &[7; 32]);
    assert_eq!(pair.sides[0].poll_close(), Some(id));
    let (dialled, accepted) = pair.connect(1, 0);
    pair.exchange(1, dialled, accepted);
    assert!(pair.sides[0].poll_event().is_some());
}

#[test]
fn ones_own_bytes_thrown_back_prove_nothing() {
    let mut pair = Pair::new();
    let side = &mut pair.sides[0];
    let id = side.handle_accepted(pair.now, "203.0.113.66:6".parse().unwrap()).unwrap();
    for _ in 0..2 {
        let (_, bytes) = side.poll_transmit().unwrap();
        side.handle_bytes(id, &bytes);
    }
    assert_eq!((side.poll_close(), side.poll_event()), (Some(id), None));
}

#[test]
fn bytes_of_the_application_behind_the_choice_are_left_alone() {
    let mut pair = Pair::new();
    let leader = usize::from(!pair.sides[0].keys.leads());
    let (dialled, accepted) = pair.connect(leader, 1 - leader);
    pair.exchange(leader, dialled, accepted);
    assert_eq!(pair.sides[leader].wanted_bytes(dialled), 0);
    assert_eq!(pair.sides[1 - leader].wanted_bytes(accepted), 0);
}

#[test]
fn an_attempt_is_not_given_up_while_the_system_has_few_packets_to_send_for_it() {
    let mut pair = Pair::new();
    let side = &mut pair.sides[0];
    side.handle_timeout(pair.now);
    let dial = side.poll_dial().expect("at once: nothing goes ahead of it");
    let due = side.poll_timeout().unwrap();
    // The peer may begin five seconds later, and meets it then. The system sends it a fifth time after 15 seconds.
    assert!(due > pair.now + Duration::from_secs(10) && due < pair.now + Duration::from_secs(15));
    side.handle_timeout(due);
    assert_eq!((side.poll_close(), side.poll_dial(), side.poll_timeout()), (Some(dial.id), None, None));
}

#[test]
fn a_refusal_leads_to_another_attempt_but_not_for_ever() {
    let mut pair = Pair::new();
    let side = &mut pair.sides[0];
    let mut attempts = 0;
    while let Some(due) = side.poll_timeout() {
        side.handle_timeout(due);
        while side.poll_close().is_some() {}
        while let Some(dial) = side.poll_dial() {
            attempts += 1;
            side.handle_failed(due, dial.id);
        }
    }
    assert_eq!(attempts, 40);
    assert_eq!(side.obstacle(), Obstacle::Refused);
}

#[test]
fn connections_that_come_and_go_do_not_disturb_our_own_attempts() {
    let mut pair = Pair::new();
    let (side, mut now) = (&mut pair.sides[0], pair.now);
    let peer: SocketAddr = "192.0.2.2:4000".parse().unwrap();
    let mut attempts = 0;
    for _ in 0..200 {
        // One that the peer's address dialled, and one that we dialled, end at once.
        let accepted = side.handle_accepted(now, peer).unwrap();
        side.handle_end(now, accepted);
        side.handle_timeout(now);
        while side.poll_close().is_some() {}
        while let Some(dial) = side.poll_dial() {
            attempts += 1;
            side.handle_connected(now, dial.id);
            side.handle_end(now, dial.id);
        }
        let Some(due) = side.poll_timeout() else { break };
        now = due;
    }
    assert_eq!(attempts, 40, "each counts as a refusal");
}

#[test]
fn who_proves_nothing_in_time_is_closed_and_there_are_never_too_many() {
    let mut pair = Pair::new();
    let (side, now) = (&mut pair.sides[0], pair.now);
    let accepted = (0..1_000).filter_map(|port| side.handle_accepted(now, ([203, 0, 113, 66], port).into()));
    let accepted: Vec<ConnectionId> = accepted.collect();
    assert_eq!(accepted.len(), MAX_CONNECTIONS);
    side.handle_timeout(now + PROOF_TIME);
    let closed: Vec<ConnectionId> = std::iter::from_fn(|| side.poll_close()).collect();
    assert!(accepted.iter().all(|id| closed.contains(id)));
}

/// Two punchers whose connections the tests make.
struct Pair {
    now: Instant,
    sides: [TcpPuncher; 2],
}

impl Pair {
    fn new() -> Self {
        let now = epoch();
        let address = |text: &str| vec![MappedSocketAddr::host(text.parse().unwrap())];
        let (a, b) = (address("198.51.100.2:4000"), address("192.0.2.2:4000"));
        let keys = |ours: &[u8], theirs: &[u8]| PunchKeys::derive(b"s", ours, theirs).unwrap();
        let sides = [
            TcpPuncher::new(now, &a, &b, keys(b"a", b"b"), Seed::from(1)),
            TcpPuncher::new(now, &b, &a, keys(b"b", b"a"), Seed::from(2)),
        ];
        Self { now, sides }
    }

    /// Lets one side's dial arrive at the other.
    fn connect(&mut self, from: usize, to: usize) -> (ConnectionId, ConnectionId) {
        let side = &mut self.sides[from];
        let dial = loop {
            side.handle_timeout(self.now);
            if let Some(dial) = side.poll_dial() {
                break dial;
            }
            self.now = side.poll_timeout().unwrap();
        };
        side.handle_connected(self.now, dial.id);
        let source = ["198.51.100.2:4000", "192.0.2.2:4000"][from].parse().unwrap();
        (dial.id, self.sides[to].handle_accepted(self.now, source).unwrap())
    }

    /// Carries bytes between the two ends of a connection, in pieces, until there are none.
    fn exchange(&mut self, from: usize, dialled: ConnectionId, accepted: ConnectionId) {
        let ids = if from == 0 { [dialled, accepted] } else { [accepted, dialled] };
        let mut held: [VecDeque<(ConnectionId, Vec<u8>)>; 2] = Default::default();
        loop {
            let mut moved = false;
            for side in [0, 1] {
                while let Some((id, bytes)) = self.sides[side].poll_transmit() {
                    if id == ids[side] {
                        moved = true;
                        for piece in bytes.chunks(5) {
                            self.sides[1 - side].handle_bytes(ids[1 - side], piece);
                        }
                    } else {
                        held[side].push_back((id, bytes));
                    }
                }
            }
            if !moved {
                break;
            }
        }
        for (side, held) in self.sides.iter_mut().zip(held) {
            side.transmits.extend(held);
        }
    }
}
