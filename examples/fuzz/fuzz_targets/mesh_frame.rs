//! Any bytes as frames, in any pieces, and whatever streams, users and time do to a member of a mesh.
//!
//! The first byte says which, and how large the pieces are.
#![no_main]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crust::{Identity, PublicKey};
use crust_examples::{
    fuzzing::check_frame,
    protocol::mesh::{Action, Event, LinkId, Mesh, Settings},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&mode, input)) = input.split_first() else { return };
    if mode & 1 == 0 {
        frames(input, usize::from(mode >> 1) + 1);
    } else {
        Member::new(mode & 2 != 0).run(input);
    }
});

fn frames(input: &[u8], piece: usize) {
    let mut rest = input;
    while let Some(length) = check_frame(rest) {
        rest = &rest[length..];
    }
    // What it needs to hear before messages count.
    let greeting = [&[0, 0, 0, 1, 1][..], &[0, 0, 0, 2, 0, b'x']].concat();
    for input in [input.to_vec(), [&greeting, input].concat()] {
        assert_eq!(events(&input, input.len().max(1)), events(&input, piece), "pieces make no difference");
    }
}

fn events(input: &[u8], piece: usize) -> Vec<Event> {
    let now = Instant::now();
    let mut mesh = Mesh::new(key(0), "zero", Settings::default());
    mesh.add_peer(now, key(1));
    let link = mesh.handle_stream(now, key(1)).expect("it belongs to the group");
    input.chunks(piece).for_each(|part| mesh.handle_input(now, link, part));
    std::iter::from_fn(|| mesh.poll_event()).collect()
}

struct Member {
    now: Instant,
    mesh: Mesh,
    up: BTreeSet<PublicKey>,
    links: BTreeSet<LinkId>,
}

impl Member {
    fn new(open: bool) -> Self {
        let now = Instant::now();
        let settings = Settings { queue: QUEUE, open, ..Settings::default() };
        let mut mesh = Mesh::new(key(0), "zero", settings);
        (1..3).for_each(|place| mesh.add_peer(now, key(place)));
        Self { now, mesh, up: BTreeSet::new(), links: BTreeSet::new() }
    }

    /// Two bytes a step, and what the second one counts.
    fn run(mut self, mut input: &[u8]) {
        while let [what, number, rest @ ..] = input {
            let peer = key(usize::from(what >> 4) % KEYS);
            let (part, rest) = rest.split_at(usize::from(*number).min(rest.len()));
            let taken = matches!(what & 15, 0..=3);
            input = if taken { rest } else { &input[2..] };
            let link = self.mesh.binding(peer).map(|(link, _)| link);
            match (what & 15, link) {
                (0..=2, Some(link)) => self.mesh.handle_input(self.now, link, part),
                (3, _) => drop(self.mesh.send(self.now, peer, part)),
                (4, _) => drop(self.mesh.send(self.now, peer, &vec![7; usize::from(*number) * 16])),
                (5, Some(link)) => self.mesh.wrote(link, usize::from(*number) * 8),
                (6, _) => self.links.extend(self.mesh.handle_stream(self.now, peer)),
                (7, Some(link)) => self.mesh.handle_end(self.now, link),
                (8, _) => self.mesh.handle_dial_failed(self.now, peer, number.to_string()),
                (9, _) => self.mesh.remove_peer(self.now, peer),
                (10, _) => self.mesh.add_peer(self.now, peer),
                (11, _) => self.mesh.dial_peer(self.now, peer),
                // What it has greeted with is acknowledged, and it is greeted.
                (12, Some(link)) => {
                    self.mesh.handle_input(self.now, link, &[0, 0, 0, 1, 1, 0, 0, 0, 2, 0, b'x']);
                }
                (13, _) => {
                    self.now += Duration::from_millis(u64::from(*number) * 20);
                    self.mesh.handle_timeout(self.now);
                    assert!(self.mesh.poll_timeout().is_none_or(|at| at > self.now), "it would never rest");
                }
                _ => {}
            }
            self.check();
        }
    }

    fn check(&mut self) {
        while let Some(event) = self.mesh.poll_event() {
            match event {
                Event::Up { peer, .. } => assert!(self.up.insert(peer)),
                Event::Message { peer, .. } => assert!(self.up.contains(&peer)),
                Event::Down { peer, .. } => assert!(self.up.remove(&peer)),
                Event::Unreached { peer, .. } => assert!(self.mesh.dials(peer)),
            }
        }
        while let Some(action) = self.mesh.poll_action() {
            if let Action::Close(link) = action {
                assert!(self.links.remove(&link), "a stream is closed once");
            }
        }
        assert!(self.mesh.up().eq(self.up.iter().copied()));
        assert!(self.mesh.links().eq(self.links.iter().copied()));
        for link in &self.links {
            // Greeting, acknowledgement and a beat are said whatever the queue.
            assert!(self.mesh.output(*link).len() <= QUEUE + 64);
        }
    }
}

fn key(place: usize) -> PublicKey {
    static KEYS_OF: std::sync::LazyLock<[PublicKey; KEYS]> = std::sync::LazyLock::new(|| {
        std::array::from_fn(|place| Identity::from_seed([place as u8; 32]).public_key())
    });
    KEYS_OF[place]
}

const KEYS: usize = 5;
const QUEUE: usize = 4_096;
