//! Nodes over streams in memory, whose faults are written down, in virtual time.
#![expect(clippy::disallowed_methods, reason = "virtual time needs a beginning, and all is relative to it")]

use crust::Identity;

use super::*;

/// A group in one thread. Streams cut what they carry into pieces, stall and break as told.
struct Group {
    now: Instant,
    nodes: Vec<Mesh>,
    keys: Vec<PublicKey>,
    /// Both ends of each stream that is open: node and its name for it.
    streams: Vec<[(usize, LinkId); 2]>,
    /// Nodes that neither read nor keep time, such as stopped processes; nor do they accept.
    stopped: Vec<bool>,
    /// How many bytes a stream carries at once.
    piece: usize,
    events: Vec<Vec<Event>>,
}

impl Group {
    fn new(size: usize) -> Self {
        let mut keys: Vec<PublicKey> =
            (0..size).map(|place| Identity::from_seed([place as u8; 32]).public_key()).collect();
        keys.sort();
        let now = Instant::now();
        let mut nodes: Vec<Mesh> =
            keys.iter().map(|key| Mesh::new(*key, &format!("{key:?}")[..4], Settings::default())).collect();
        for node in &mut nodes {
            keys.iter().for_each(|key| node.add_peer(now, *key));
        }
        let stopped = vec![false; size];
        Self { now, nodes, keys, streams: Vec::new(), stopped, piece: 7, events: vec![Vec::new(); size] }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for place in 0..self.nodes.len() {
                if !self.stopped[place] && self.nodes[place].poll_timeout().is_some_and(|at| at <= self.now) {
                    self.nodes[place].handle_timeout(self.now);
                }
            }
            if self.act() | self.carry() {
                continue;
            }
            let awake = self.nodes.iter().zip(&self.stopped).filter(|(_, stopped)| !**stopped);
            let next = awake.filter_map(|(node, _)| node.poll_timeout()).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
        }
    }

    fn act(&mut self) -> bool {
        let mut acted = false;
        for place in 0..self.nodes.len() {
            while let Some(action) = self.nodes[place].poll_action() {
                acted = true;
                match action {
                    Action::Dial(key) => self.dial(place, key),
                    Action::Close(id) => self.cut(place, id),
                }
            }
            while let Some(event) = self.nodes[place].poll_event() {
                self.events[place].push(event);
            }
        }
        acted
    }

    fn dial(&mut self, from: usize, key: PublicKey) {
        let to = self.keys.iter().position(|other| *other == key).unwrap();
        if self.stopped[to] {
            return self.nodes[from].handle_dial_failed(self.now, key, "it is stopped".to_owned());
        }
        let near = self.nodes[from].handle_stream(self.now, key).unwrap();
        let far = self.nodes[to].handle_stream(self.now, self.keys[from]).unwrap();
        self.streams.push([(from, near), (to, far)]);
    }

    fn cut(&mut self, place: usize, id: LinkId) {
        let Some(at) = self.streams.iter().position(|ends| ends.contains(&(place, id))) else { return };
        for (place, id) in self.streams.swap_remove(at) {
            self.nodes[place].handle_end(self.now, id);
        }
    }

    fn carry(&mut self) -> bool {
        let mut carried = false;
        for [one, other] in self.streams.clone() {
            for ((from, near), (to, far)) in [(one, other), (other, one)] {
                let output = self.nodes[from].output(near);
                if output.is_empty() || self.stopped[to] || self.stopped[from] {
                    continue;
                }
                let bytes = output[..output.len().min(self.piece)].to_vec();
                self.nodes[from].wrote(near, bytes.len());
                self.nodes[to].handle_input(self.now, far, &bytes);
                carried = true;
            }
        }
        carried
    }

    fn up(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.up().count()).collect()
    }

    fn messages(&self, place: usize, from: usize) -> Vec<&[u8]> {
        let from = self.keys[from];
        let said = |event| match event {
            &Event::Message { peer, ref message } if peer == from => Some(&message[..]),
            _ => None,
        };
        self.events[place].iter().filter_map(said).collect()
    }
}

#[test]
fn every_pair_shares_one_stream_and_says_hello_once() {
    let mut group = Group::new(8);
    group.run(Duration::from_secs(2));
    assert_eq!(group.up(), [7; 8]);
    assert_eq!(group.streams.len(), 28);
    let sum =
        |counter: fn(Counters) -> u64| group.nodes.iter().map(|node| counter(node.counters())).sum::<u64>();
    assert_eq!(sum(|all| all.hellos_sent), 56);
    assert_eq!(sum(|all| all.hellos_received), 56);
    assert_eq!(sum(|all| all.acks_sent), 56);
    assert_eq!(sum(|all| all.acks_received), 56);
    let once = Counters {
        hellos_sent: 1,
        hellos_received: 1,
        acks_sent: 1,
        acks_received: 1,
        ..Counters::default()
    };
    assert!(group.nodes.iter().flat_map(Mesh::ledger).all(|(_, counters)| counters == once));
}

#[test]
fn who_comes_back_is_dialled_within_the_longest_wait() {
    let mut group = Group::new(2);
    group.run(Duration::from_secs(1));
    for away in [1, 5, 60] {
        let [(place, id), _] = group.streams[0];
        group.stopped[1] = true; // it is dead, and so is its stream
        group.cut(place, id);
        group.run(Duration::from_secs(away));
        group.stopped[1] = false;
        let longest = Settings::default().redial_most;
        group.run(longest);
        assert_eq!(group.up(), [1, 1], "after {away} s");
    }
}

#[test]
fn messages_arrive_in_order_however_the_stream_cuts_them() {
    for piece in [1, 3, 100, 100_000] {
        let mut group = Group::new(3);
        group.piece = piece;
        group.run(Duration::from_millis(10));
        let (to, now) = (group.keys[2], group.now);
        for number in 0..100_u16 {
            let message = vec![number as u8; usize::from(number) * 5];
            group.nodes[0].send(now, to, &message).unwrap();
        }
        group.run(Duration::from_millis(10));
        let heard = group.messages(2, 0);
        assert_eq!(heard.len(), 100);
        assert!(heard.iter().enumerate().all(|(at, message)| message.len() == at * 5));
        assert!(group.messages(1, 0).is_empty());
    }
}

#[test]
fn a_peer_that_reads_nothing_fills_its_own_queue_only_and_is_found_out() {
    let mut group = Group::new(3);
    group.run(Duration::from_secs(1));
    group.stopped[2] = true;
    let stopped_at = group.now;
    let message = [7; 1_000];
    let mut refused = 0;
    while group.now < stopped_at + Duration::from_secs(2) {
        for to in [1, 2] {
            let (key, now) = (group.keys[to], group.now);
            match group.nodes[0].send(now, key, &message) {
                Ok(()) => {}
                Err(SendError::Full) if to == 2 => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        group.run(Duration::from_millis(1));
    }
    assert!(
        refused > 0 && group.nodes[0].output(*group.nodes[0].links.keys().max().unwrap()).len() <= 1 << 20
    );
    assert_eq!(group.messages(1, 0).len(), 2_000);
    assert!(!group.events[0].iter().any(|event| matches!(event, Event::Down { .. })), "not yet");
    group.run(Duration::from_millis(1_100));
    let gone = Event::Down { peer: group.keys[2], reason: Reason::Silent };
    assert!(group.events[0].contains(&gone) && group.events[1].contains(&gone));
    assert_eq!(group.up()[..2], [1, 1]);
}

#[test]
fn a_short_stop_loses_nothing_and_a_long_one_is_mended() {
    let mut group = Group::new(4);
    group.run(Duration::from_secs(1));
    group.stopped[3] = true;
    for number in 0..200_u8 {
        let (key, now) = (group.keys[3], group.now);
        group.nodes[0].send(now, key, &[number]).unwrap();
        group.run(Duration::from_millis(5));
    }
    group.stopped[3] = false;
    group.run(Duration::from_secs(1));
    assert!(group.messages(3, 0).iter().map(|message| message[0]).eq(0..200));
    assert!(group.events.iter().flatten().all(|event| !matches!(event, Event::Down { .. })));

    group.stopped[3] = true;
    group.run(Duration::from_secs(10));
    assert_eq!(group.up()[..3], [2; 3]);
    // It is dialled all the time, and what does not change is told once.
    let unreached = |event: &&Event| matches!(event, Event::Unreached { .. });
    assert_eq!(group.events.iter().flatten().filter(unreached).count(), 3);
    group.stopped[3] = false;
    group.run(Duration::from_secs(5));
    assert_eq!(group.up(), [3; 4]);
}

#[test]
fn a_broken_stream_is_dialled_anew() {
    let mut group = Group::new(2);
    group.run(Duration::from_secs(1));
    let [(place, id), _] = group.streams[0];
    group.cut(place, id);
    group.run(Duration::from_millis(150));
    assert_eq!(group.up(), [1, 1]);
    assert_eq!(group.streams.len(), 1);
}

#[test]
fn whoever_breaks_the_rules_loses_the_stream() {
    let [key, other] = [1, 2].map(|seed| Identity::from_seed([seed; 32]).public_key());
    let stranger = Identity::from_seed([3; 32]).public_key();
    let hello = [0, 0, 0, 2, 0, b'x'];
    for (bytes, what) in [
        (vec![0, 0, 0, 1, 9], "a frame of unknown form"),
        (vec![0, 0, 0, 0], "a frame of excessive length, or none"),
        (vec![255, 255, 255, 255, 3], "a frame of excessive length, or none"),
        (vec![0, 0, 0, 2, 3, 0], "a message before hello and acknowledgement"),
        ([&hello[..], &[0, 0, 0, 2, 3, 0]].concat(), "a message before hello and acknowledgement"),
        (vec![0, 0, 0, 2, 0, 255], "a name that is no text"),
        (vec![0, 0, 0, 2, 1, 0], "a frame of unknown form"),
        ([hello, hello].concat(), "a second hello or acknowledgement"),
    ] {
        let now = Instant::now();
        let mut node = Mesh::new(key, "node", Settings::default());
        node.add_peer(now, other);
        assert_eq!(node.handle_stream(now, stranger), None);
        let id = node.handle_stream(now, other).unwrap();
        // Up first, so that its end is an event.
        if !what.contains("before") && !what.contains("name") && !what.contains("second") {
            node.handle_input(now, id, &[&hello[..], &[0, 0, 0, 1, 1]].concat());
            assert!(matches!(node.poll_event(), Some(Event::Up { .. })));
            node.handle_input(now, id, &bytes);
            assert_eq!(node.poll_event(), Some(Event::Down { peer: other, reason: Reason::Broken(what) }));
        } else {
            node.handle_input(now, id, &bytes);
        }
        assert_eq!(node.poll_action(), Some(Action::Close(id)), "{what}");
        assert_eq!(node.send(now, other, b"x"), Err(SendError::NotUp));
    }
}

#[test]
fn strangers_leave_room_for_others() {
    let now = Instant::now();
    let key = |number: usize| {
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        Identity::from_seed(seed).public_key()
    };
    let up = [0, 0, 0, 2, 0, b'x', 0, 0, 0, 1, 1];
    let mut node = Mesh::new(key(0), "node", Settings { open: true, ..Settings::default() });
    assert_eq!(node.handle_stream(now, key(0)), None, "it is no stranger to itself");
    node.dial_peer(now, key(1));
    // Whoever goes before it has said who it is, is forgotten; whoever goes later, when its place is needed.
    for number in 2..2 * MAX_PEERS {
        let id = node.handle_stream(now, key(number)).expect("there is room");
        node.bind(id, [7; 32]);
        assert_eq!(node.binding(key(number)), Some((id, [7; 32])));
        if number % 2 == 0 {
            node.handle_input(now, id, &up);
        }
        node.handle_end(now, id);
        assert_eq!(node.binding(key(number)), None);
    }
    assert!(node.dials(key(1)) && !node.dials(key(2)));
    let stays: Vec<_> =
        (0..MAX_PEERS - 1).map(|number| node.handle_stream(now, key(1_000 + number))).collect();
    assert!(stays.iter().all(Option::is_some));
    assert_eq!(node.handle_stream(now, key(5_000)), None, "there is no room for more at a time");
    node.remove_peer(now, key(1_000));
    assert!(node.handle_stream(now, key(5_000)).is_some());
}
