use super::*;

const A: &str = "198.51.100.2:4000";
const B: &str = "192.0.2.2:5000";

#[test]
fn a_dial_and_a_listener_become_a_connection_and_bytes_arrive_in_order() {
    let mut pair = Pair::new();
    pair.stacks[1].listen(address(B));
    let dialled = pair.dial(0);
    pair.exchange(|_| true);
    assert_eq!(pair.stacks[0].poll_event(), Some(TcpEvent::Connected(dialled)));
    let Some(TcpEvent::Accepted(accepted, from)) = pair.stacks[1].poll_event() else {
        panic!("not accepted")
    };
    assert_eq!(from, address(A));

    // The first copy of every segment is lost.
    let mut lost = Vec::new();
    pair.stacks[0].send(pair.now, dialled, b"one");
    pair.stacks[0].send(pair.now, dialled, b"two");
    for _ in 0..4 {
        pair.exchange(|segment| {
            let again = lost.contains(segment);
            lost.push(segment.clone());
            again
        });
        pair.pass();
    }
    let received: Vec<TcpEvent> = std::iter::from_fn(|| pair.stacks[1].poll_event()).collect();
    let bytes = |text: &[u8]| TcpEvent::Bytes(accepted, text.to_vec());
    assert_eq!(received, [bytes(b"one"), bytes(b"two")]);
    pair.stacks[0].close(dialled);
    pair.exchange(|_| true);
    assert_eq!(pair.stacks[1].poll_event(), Some(TcpEvent::Ended(accepted)));
    assert_eq!((pair.stacks[0].connections(), pair.stacks[1].connections()), (0, 0));
}

#[test]
fn two_dials_that_cross_become_one_connection() {
    let mut pair = Pair::new();
    let ends = [pair.dial(0), pair.dial(1)];
    pair.exchange(|_| true);
    for (stack, end) in pair.stacks.iter_mut().zip(ends) {
        assert_eq!(stack.poll_event(), Some(TcpEvent::Connected(end)));
        assert_eq!(stack.poll_event(), None);
    }
}

#[test]
fn nobody_there_refuses_and_silence_fails_after_a_minute() {
    let mut pair = Pair::new();
    let dialled = pair.dial(0);
    pair.exchange(|_| true);
    assert_eq!(pair.stacks[0].poll_event(), Some(TcpEvent::Failed(dialled)));

    let start = pair.now;
    let dialled = pair.dial(0);
    let mut sent = 0;
    let event = loop {
        pair.exchange(|_| {
            sent += 1;
            false
        });
        if let Some(event) = pair.stacks[0].poll_event() {
            break event;
        }
        pair.pass();
    };
    assert_eq!((event, sent), (TcpEvent::Failed(dialled), 7));
    assert_eq!(pair.now - start, Duration::from_secs(127));
}

#[test]
fn one_pair_of_addresses_has_one_connection() {
    let mut pair = Pair::new();
    let first = pair.dial(0);
    let now = pair.now;
    assert_eq!(pair.stacks[0].dial(now, address(A), address(B), None), None);
    pair.stacks[0].close(first);
    assert!(pair.stacks[0].dial(now, address(A), address(B), None).is_some());
}

/// Two stacks and the wire between them.
struct Pair {
    stacks: [TcpStack; 2],
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        Self { stacks: [TcpStack::default(), TcpStack::default()], now: crate::testing::epoch() }
    }

    fn dial(&mut self, side: usize) -> ConnectionHandle {
        let [local, remote] = if side == 0 { [A, B] } else { [B, A] };
        self.stacks[side].dial(self.now, address(local), address(remote), None).unwrap()
    }

    /// Carries segments, those of both sides in turn, until there are none; `keep` says which arrive.
    fn exchange(&mut self, mut keep: impl FnMut(&Segment) -> bool) {
        loop {
            let crossing = [0, 1].map(|side: usize| {
                std::iter::from_fn(|| self.stacks[side].poll_segment()).collect::<Vec<_>>()
            });
            if crossing.iter().all(Vec::is_empty) {
                return;
            }
            for (side, segments) in crossing.into_iter().enumerate() {
                for segment in segments {
                    if keep(&segment) {
                        self.stacks[1 - side].handle_segment(self.now, segment);
                    }
                }
            }
        }
    }

    /// Lets time pass to the next timer.
    fn pass(&mut self) {
        let due = self.stacks.iter().filter_map(TcpStack::poll_timeout).min();
        if let Some(due) = due {
            self.now = due;
            self.stacks.iter_mut().for_each(|stack| stack.handle_timeout(due));
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
