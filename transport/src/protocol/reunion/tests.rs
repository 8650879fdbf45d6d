//! Two peers that dial each other when they like, over a network that delays, repeats and reorders, in virtual time.

use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::protocol::dice::Dice;

/// What reaches a side, or happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The application dials.
    Dial {
        ticket: usize,
    },
    Hello {
        link: usize,
    },
    HelloBack {
        link: usize,
    },
    Finished {
        link: usize,
    },
    Preface {
        link: usize,
        ticket: usize,
    },
    Verdict {
        link: usize,
        ticket: usize,
        ruling: Ruling,
    },
    Bytes {
        link: usize,
        ticket: usize,
    },
    Close {
        link: usize,
    },
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Shaking,
    Up,
    Closed,
}

/// One connection, as each of the two sees it.
#[derive(Debug, Default)]
struct Link {
    dialler: usize,
    state: [State; 2],
    begun: Option<Instant>,
    /// Dials of each side that wait for the handshake, or for a verdict.
    waiting: [BTreeSet<usize>; 2],
    /// Streams that are open, by ticket.
    open: [BTreeSet<usize>; 2],
}

struct Peer {
    key: PublicKey,
    reunion: Reunion,
    /// Dials sent on to a connection that is not up here yet.
    parked: Vec<usize>,
    connected: BTreeSet<usize>,
    accepted: Vec<usize>,
    received: BTreeSet<usize>,
}

struct World {
    dice: Dice,
    now: Instant,
    peers: [Peer; 2],
    links: Vec<Link>,
    dialled_by: Vec<usize>,
    events: BTreeMap<(Instant, u64), (usize, Event)>,
    count: u64,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a test has to count from somewhere")]
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let first = u8::try_from(dice.roll(2)).unwrap();
        let peer = |number: u8| {
            let key = PublicKey::from_bytes([number + 1; 32]);
            Peer {
                key,
                reunion: Reunion::new(key),
                parked: Vec::new(),
                connected: BTreeSet::new(),
                accepted: Vec::new(),
                received: BTreeSet::new(),
            }
        };
        let now = Instant::now();
        let mut world = Self {
            dice,
            now,
            peers: [peer(first), peer(1 - first)],
            links: Vec::new(),
            dialled_by: Vec::new(),
            events: BTreeMap::new(),
            count: 0,
        };
        // From exactly at once to one after the other.
        let spread = [1, 10, 60, 250][usize::try_from(world.dice.roll(4)).unwrap()];
        for side in 0..2 {
            for _ in 0..=world.dice.roll(3) {
                let ticket = world.dialled_by.len();
                world.dialled_by.push(side);
                let at = world.now + Duration::from_millis(world.dice.roll(spread));
                world.at(at, side, Event::Dial { ticket });
            }
        }
        world
    }

    fn at(&mut self, at: Instant, side: usize, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), (side, event));
    }

    /// On its way to the other side; what is lost comes later, as it is sent again.
    fn send(&mut self, from: usize, event: Event) {
        let lost = if self.dice.roll(5) == 0 { 100 } else { 0 };
        let at = self.now + Duration::from_millis(1 + self.dice.roll(60) + lost);
        self.at(at, 1 - from, event);
    }

    fn run(mut self) -> Self {
        while let Some(((at, _), (side, event))) = self.events.pop_first() {
            self.now = at;
            self.handle(side, event);
        }
        self
    }

    fn handle(&mut self, side: usize, event: Event) {
        match event {
            Event::Dial { ticket } => self.dial(side, ticket),
            Event::Hello { link } => {
                self.links[link].begun = Some(self.now);
                if self.links[link].state[side] == State::Unknown {
                    self.links[link].state[side] = State::Shaking;
                    self.send(side, Event::HelloBack { link });
                }
            }
            Event::HelloBack { link } if self.links[link].state[side] == State::Shaking => {
                self.links[link].state[side] = State::Up;
                self.send(side, Event::Finished { link });
                let waiting = self.links[link].waiting[side].clone();
                let peer = self.peers[1 - side].key;
                if !waiting.is_empty() {
                    self.peers[side].reunion.asked(peer, number(link));
                }
                for ticket in waiting {
                    self.send(side, Event::Preface { link, ticket });
                }
            }
            Event::Finished { link } if self.links[link].state[side] == State::Shaking => {
                self.links[link].state[side] = State::Up;
            }
            Event::Preface { link, ticket } => self.judge(side, link, ticket),
            Event::Verdict { link, ticket, ruling } => self.judged(side, link, ticket, ruling),
            Event::Bytes { link, ticket } => {
                assert_eq!(
                    self.links[link].state[side],
                    State::Up,
                    "bytes came to a connection that is closed"
                );
                assert!(self.peers[side].received.insert(ticket));
            }
            Event::Close { link } => {
                let open = &self.links[link].open[side];
                assert!(open.is_empty(), "streams {open:?} were cut off");
                self.end(side, link);
            }
            _ => {}
        }
    }

    fn dial(&mut self, side: usize, ticket: usize) {
        let peer = self.peers[1 - side].key;
        let reunion = &self.peers[side].reunion;
        let ours = self
            .links
            .iter()
            .position(|link| link.dialler == side && matches!(link.state[side], State::Shaking | State::Up));
        match (ours, reunion.guest(peer)) {
            (None, Some(guest)) => self.ask(side, usize::try_from(guest).unwrap(), ticket),
            (Some(link), _) if self.links[link].state[side] == State::Up => {
                self.peers[side].reunion.asked(peer, number(link));
                self.ask(side, link, ticket);
            }
            (Some(link), _) => drop(self.links[link].waiting[side].insert(ticket)),
            (None, None) => {
                let link = self.links.len();
                let mut fresh = Link { dialler: side, ..Link::default() };
                fresh.state[side] = State::Shaking;
                fresh.waiting[side].insert(ticket);
                self.links.push(fresh);
                self.peers[side].reunion.dialling(peer, number(link));
                self.send(side, Event::Hello { link });
            }
        }
    }

    fn ask(&mut self, side: usize, link: usize, ticket: usize) {
        assert_eq!(self.links[link].state[side], State::Up, "asked on a connection that is not up");
        self.links[link].waiting[side].insert(ticket);
        self.send(side, Event::Preface { link, ticket });
    }

    fn judge(&mut self, side: usize, link: usize, ticket: usize) {
        match self.links[link].state[side] {
            State::Up => {}
            // It cannot be read yet.
            State::Unknown | State::Shaking => {
                return self.at(self.now + MS, side, Event::Preface { link, ticket });
            }
            State::Closed => panic!("a preface came to a connection that is closed"),
        }
        let peer = self.peers[1 - side].key;
        let mut ruling = Ruling::Stays;
        if self.links[link].dialler != side {
            let begun = self.links[link].begun.unwrap();
            ruling = self.peers[side].reunion.arrived(peer, number(link), begun, true);
        }
        if ruling != Ruling::Elsewhere {
            self.links[link].open[side].insert(ticket);
            self.peers[side].accepted.push(ticket);
        }
        self.send(side, Event::Verdict { link, ticket, ruling });
        if ruling == Ruling::Welcome {
            self.welcome(side, link);
        }
    }

    fn welcome(&mut self, side: usize, guest: usize) {
        let mut moving = std::mem::take(&mut self.peers[side].parked);
        for link in 0..self.links.len() {
            if self.links[link].dialler == side && self.links[link].state[side] == State::Shaking {
                moving.extend(std::mem::take(&mut self.links[link].waiting[side]));
            }
            if self.links[link].dialler == side {
                self.close_if_idle(side, link);
            }
        }
        for ticket in moving {
            self.ask(side, guest, ticket);
        }
    }

    fn judged(&mut self, side: usize, link: usize, ticket: usize, ruling: Ruling) {
        assert_eq!(self.links[link].state[side], State::Up, "a verdict came to a connection that is closed");
        assert!(self.links[link].waiting[side].remove(&ticket));
        let peer = self.peers[1 - side].key;
        if self.links[link].dialler == side {
            self.peers[side].reunion.confirmed(self.now, peer, number(link));
        }
        if ruling != Ruling::Elsewhere {
            self.links[link].open[side].insert(ticket);
            assert!(self.peers[side].connected.insert(ticket));
            return self.send(side, Event::Bytes { link, ticket });
        }
        match self.peers[side].reunion.guest(peer) {
            Some(guest) => self.ask(side, usize::try_from(guest).unwrap(), ticket),
            None => self.peers[side].parked.push(ticket),
        }
        self.close_if_idle(side, link);
    }

    fn close_if_idle(&mut self, side: usize, link: usize) {
        let one = &self.links[link];
        let alive = matches!(one.state[side], State::Shaking | State::Up);
        if alive && one.waiting[side].is_empty() && one.open[side].is_empty() {
            self.end(side, link);
            self.send(side, Event::Close { link });
        }
    }

    fn end(&mut self, side: usize, link: usize) {
        self.links[link].state[side] = State::Closed;
        let peer = self.peers[1 - side].key;
        self.peers[side].reunion.ended(peer, number(link));
    }

    /// What must hold when all is over.
    fn check(&self) {
        for side in 0..2 {
            let dialled =
                |by| (0..self.dialled_by.len()).filter(move |&ticket| self.dialled_by[ticket] == by);
            let ours: BTreeSet<_> = dialled(side).collect();
            let mut theirs: Vec<_> = dialled(1 - side).collect();
            assert_eq!(self.peers[side].connected, ours, "every dial gives its stream");
            let mut accepted = self.peers[side].accepted.clone();
            accepted.sort_unstable();
            theirs.sort_unstable();
            assert_eq!(accepted, theirs, "every stream of the peer's is accepted once");
            assert_eq!(
                self.peers[side].received.iter().copied().collect::<Vec<_>>(),
                theirs,
                "no byte is lost"
            );
            let up = self.links.iter().filter(|link| link.state[side] == State::Up).count();
            assert_eq!(up, 1, "one connection is left");
            let others = |link: &&Link| link.state[side] != State::Up && link.state[side] != State::Closed;
            let unfinished: Vec<_> = self.links.iter().filter(others).collect();
            let gone = |link: &&Link| link.state[link.dialler] == State::Closed;
            assert!(unfinished.iter().all(gone), "{unfinished:?}");
        }
    }
}

fn number(link: usize) -> u64 {
    u64::try_from(link).unwrap()
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn two_that_dial_each_other_keep_one_connection_in_ten_thousand_orders_of_events() {
    let (mut crossed, mut sent_on) = (0, 0);
    for seed in 0..10_000 {
        let told = std::panic::catch_unwind(|| {
            let world = World::new(seed).run();
            world.check();
            let asked_by_both = world.links.len() > 1;
            let both_up = world.links.iter().filter(|link| link.begun.is_some()).count() > 1;
            (asked_by_both, both_up)
        });
        let (both, both_up) = told.unwrap_or_else(|_| panic!("seed {seed}"));
        crossed += u32::from(both);
        sent_on += u32::from(both_up);
    }
    // Else it would not be tested.
    assert!(crossed > 2_000 && sent_on > 1_000, "{crossed} crossed, {sent_on} of them on the wire");
}

#[test]
fn a_stream_that_must_stay_and_one_to_ourselves_take_no_part() {
    let world = World::new(0);
    let (mut reunion, peer) = (Reunion::new(world.peers[0].key), world.peers[1].key);
    assert_eq!(reunion.arrived(world.peers[0].key, 1, world.now, true), Ruling::Stays);
    assert!(reunion.is_empty());
    reunion.dialling(peer, 2);
    assert_eq!(reunion.guest(peer), None);
    assert!(reunion.has_dialled(peer));
    reunion.ended(peer, 2);
    assert!(reunion.is_empty());
}

#[test]
fn a_peer_that_was_started_anew_is_not_sent_to_a_connection_of_its_earlier_life() {
    let world = World::new(0);
    let (small, large) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
    let mut reunion = Reunion::new(small);
    reunion.dialling(large, 1);
    reunion.asked(large, 1);
    assert_eq!(reunion.arrived(large, 2, world.now, true), Ruling::Elsewhere);
    reunion.confirmed(world.now + MS, large, 1);
    assert_eq!(reunion.arrived(large, 2, world.now, true), Ruling::Elsewhere);
    assert_eq!(reunion.arrived(large, 3, world.now + MS * 2, true), Ruling::Welcome);
    assert_eq!(reunion.guest(large), Some(3));
    reunion.one_way(large, 3);
    assert_eq!(reunion.guest(large), None);
}

#[test]
fn nobody_is_sent_on_where_it_would_find_no_listener() {
    let world = World::new(0);
    let (small, large) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
    let mut reunion = Reunion::new(small);
    reunion.dialling(large, 1);
    reunion.asked(large, 1);
    assert_eq!(reunion.arrived(large, 2, world.now, false), Ruling::Welcome);
}
