//! Two peers, a network that delays, loses and breaks connections, and strangers who replay tags, in virtual time.

use std::time::Duration;

use super::*;
use crate::protocol::dice::Dice;

/// A message between the two on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The connection is up at its dialler, which may now ask.
    Up,
    /// The preface reaches the acceptor.
    Asks,
    /// The verdict reaches the dialler.
    Answered { accepted: bool },
    /// The connection breaks; the side learns of it.
    Broken { side: usize },
    /// The caller of that side gives up.
    Dropped { side: usize },
    /// A stream with that tag comes from nowhere: another peer's, or a captured one.
    Stray { side: usize, right_key: bool },
    /// A plain dial, which no meeting may touch.
    Direct { side: usize },
}

struct Peer {
    meetings: Meetings<()>,
    /// The connection whose stream the call has returned.
    returned: Option<usize>,
    over: bool,
    accepts: usize,
}

struct World {
    dice: Dice,
    now: Instant,
    deadline: Instant,
    peers: [Peer; 2],
    /// Who dialled each connection, and whether it broke.
    dialled_by: Vec<usize>,
    broken: Vec<bool>,
    events: BTreeMap<(Instant, u64), (usize, Event)>,
    count: u64,
    strays: usize,
    turned_away: usize,
}

const TAG: RendezvousTag = RendezvousTag([5; 16]);
const LEADER: usize = 0;

fn key(side: usize) -> PublicKey {
    PublicKey::from_bytes([u8::try_from(side).unwrap() + 1; 32])
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let deadline = now + Duration::from_millis(300);
        let peer = |side: usize| {
            let mut meetings = Meetings::default();
            let label = ProtocolLabel::default();
            let meeting = Meeting { peer: key(1 - side), label, leads: side == LEADER, deadline, place: () };
            assert!(meetings.begin(TAG, meeting));
            Peer { meetings, returned: None, over: false, accepts: 0 }
        };
        let mut world = Self {
            dice: Dice(seed),
            now,
            deadline,
            peers: [peer(0), peer(1)],
            dialled_by: Vec::new(),
            broken: Vec::new(),
            events: BTreeMap::new(),
            count: 0,
            strays: 0,
            turned_away: 0,
        };
        for _ in 0..=world.dice.roll(5) {
            let side = usize::from(world.dice.roll(2) == 1);
            let connection = world.dialled_by.len();
            world.dialled_by.push(side);
            world.broken.push(false);
            world.later(connection, Event::Up);
            if world.dice.roll(4) == 0 {
                let side = usize::from(world.dice.roll(2) == 1);
                world.later(connection, Event::Broken { side });
            }
        }
        for _ in 0..world.dice.roll(4) {
            let side = usize::from(world.dice.roll(2) == 1);
            let right_key = world.dice.roll(2) == 0;
            world.later(0, Event::Stray { side, right_key });
            world.later(0, Event::Direct { side });
        }
        if world.dice.roll(6) == 0 {
            let side = usize::from(world.dice.roll(2) == 1);
            world.later(0, Event::Dropped { side });
        }
        world
    }

    fn later(&mut self, connection: usize, event: Event) {
        self.count += 1;
        let due = self.now + Duration::from_millis(self.dice.roll(120));
        self.events.insert((due, self.count), (connection, event));
    }

    fn run(&mut self) {
        while let Some(((due, _), (connection, event))) = self.events.pop_first() {
            self.now = due;
            for side in 0..2 {
                if self.now >= self.deadline && !self.peers[side].over {
                    self.finish(side);
                }
            }
            self.handle(connection, event);
        }
        (0..2).for_each(|side| self.finish(side));
    }

    fn finish(&mut self, side: usize) {
        self.peers[side].over = true;
        self.peers[side].meetings.end(TAG);
    }

    fn handle(&mut self, connection: usize, event: Event) {
        let dialler = self.dialled_by.get(connection).copied().unwrap_or(0);
        let now = self.now;
        match event {
            Event::Up if !self.broken[connection] => {
                if self.peers[dialler].meetings.may_ask(now, TAG, connection) {
                    self.later(connection, Event::Asks);
                }
            }
            Event::Asks if !self.broken[connection] => {
                let accepted = self.arrive(1 - dialler, &key(dialler));
                if accepted {
                    self.peers[1 - dialler].returned = Some(connection);
                    self.finish(1 - dialler);
                }
                self.later(connection, Event::Answered { accepted });
            }
            Event::Answered { accepted } if !self.broken[connection] => {
                let peer = &mut self.peers[dialler];
                if accepted && !peer.over {
                    assert_eq!(peer.returned, None);
                    peer.returned = Some(connection);
                    self.finish(dialler);
                } else {
                    peer.meetings.attempt_failed(TAG, connection);
                }
            }
            Event::Broken { side } => {
                self.broken[connection] = true;
                self.peers[side].meetings.attempt_failed(TAG, connection);
                let other = 1 - side;
                self.peers[other].meetings.attempt_failed(TAG, connection);
            }
            Event::Dropped { side } => self.finish(side),
            Event::Stray { side, right_key: false } => {
                self.strays += 1;
                let stranger = PublicKey::from_bytes([77; 32]);
                if !self.arrive(side, &stranger) {
                    self.turned_away += 1;
                }
            }
            Event::Direct { side } => self.peers[side].accepts += 1,
            // With the right key it could only be the peer itself, and a replay does not get through TLS.
            Event::Stray { .. } | Event::Up | Event::Asks | Event::Answered { .. } => {}
        }
    }

    fn arrive(&mut self, side: usize, from: &PublicKey) -> bool {
        let now = self.now;
        self.peers[side].meetings.arrived(now, TAG, from, &ProtocolLabel::default()).is_ok()
    }
}

#[test]
fn in_ten_thousand_interleavings_both_sides_get_the_two_ends_of_one_stream() {
    let (mut met, mut direct) = (0, 0);
    for seed in 0..10_000 {
        let mut world = World::new(seed);
        let directs =
            world.events.values().filter(|(_, event)| matches!(event, Event::Direct { .. })).count();
        world.run();
        let [leader, follower] = [world.peers[0].returned, world.peers[1].returned];
        if let (Some(leader), Some(follower)) = (leader, follower) {
            // A stream that broke right after its acceptance is as good as none: the peer may have gone on.
            assert!(leader == follower || world.broken[follower], "seed {seed}: {leader} and {follower}");
            met += 1;
        }
        assert_eq!(world.strays, world.turned_away, "seed {seed}: a stranger got in");
        let accepted = world.peers[0].accepts + world.peers[1].accepts;
        assert_eq!(accepted, directs, "seed {seed}: a direct dial was lost");
        direct += accepted;
        for peer in &mut world.peers {
            let late = peer.meetings.arrived(world.now, TAG, &key(0), &ProtocolLabel::default());
            assert_eq!(late, Err(Stray::Late), "seed {seed}");
            assert_eq!(peer.meetings.len(), 0, "seed {seed}");
        }
    }
    assert!(met > 7_000 && direct > 10_000, "{met} met, {direct} direct: the dice are loaded");
}

#[test]
fn strays_are_told_apart() {
    let mut world = World::new(1);
    let label = ProtocolLabel::default();
    let other = ProtocolLabel::new("other").unwrap();
    let now = world.now;
    let leader = &mut world.peers[LEADER].meetings;
    assert_eq!(leader.arrived(now, RendezvousTag([1; 16]), &key(1), &label), Err(Stray::Unknown));
    assert_eq!(leader.arrived(now, TAG, &key(0), &label), Err(Stray::Unknown), "another key");
    assert_eq!(leader.arrived(now, TAG, &key(1), &other), Err(Stray::OtherLabel));
    assert_eq!(leader.arrived(now, TAG, &key(1), &label), Ok(()));
    assert_eq!(leader.arrived(now, TAG, &key(1), &label), Err(Stray::Repeated));
    assert!(!leader.may_ask(now, TAG, 0), "one was accepted");
    leader.arrival_failed(TAG);
    assert!(leader.may_ask(now, TAG, 0) && !leader.may_ask(now, TAG, 1));
    leader.attempt_failed(TAG, 1);
    assert_eq!(leader.arrived(now, TAG, &key(1), &label), Err(Stray::Repeated), "0 is still asked for");
    leader.attempt_failed(TAG, 0);
    assert_eq!(leader.arrived(world.deadline, TAG, &key(1), &label), Err(Stray::Late));
    leader.end(TAG);
    assert_eq!(leader.arrived(now, TAG, &key(1), &label), Err(Stray::Late));
}

#[test]
fn a_tag_serves_once_and_the_table_is_bounded() {
    let mut world = World::new(1);
    let (now, deadline) = (world.now, world.deadline);
    let meetings = &mut world.peers[0].meetings;
    let meeting =
        || Meeting { peer: key(1), label: ProtocolLabel::default(), leads: true, deadline, place: () };
    assert!(!meetings.begin(TAG, meeting()), "under way");
    meetings.end(TAG);
    assert!(!meetings.begin(TAG, meeting()), "used up");
    let again = RendezvousTag([6; 16]);
    for _ in 0..2 {
        assert!(meetings.begin(again, meeting()), "it serves again");
        meetings.rest(now, again);
        assert_eq!(meetings.rests(now, again), Some(now + REST));
        assert_eq!(meetings.rests(now + REST, again), None);
    }
    for number in 0..=MAX_OPEN {
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&number.to_be_bytes());
        assert_eq!(meetings.begin(RendezvousTag(tag), meeting()), number < MAX_OPEN);
    }
    for number in 0..MAX_OPEN {
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&number.to_be_bytes());
        meetings.end(RendezvousTag(tag));
    }
    assert_eq!((meetings.len(), meetings.past.len()), (0, MAX_PAST));
    assert!(!meetings.may_ask(now, TAG, 0));
}
