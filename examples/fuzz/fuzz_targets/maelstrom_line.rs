//! Any bytes as lines, in any pieces, to a node of the broadcast example.
//!
//! The first byte says how large the pieces are and whether the node has its name already; a line of dots lets time pass.
#![no_main]

use std::time::{Duration, Instant};

use crust_examples::{
    fuzzing::lines,
    protocol::{
        Node,
        maelstrom::{LineError, Message, Payload, Read},
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&mode, input)) = input.split_first() else { return };
    let lines = lines(input, usize::from(mode >> 1) + 1, LIMIT);
    let whole = input.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &input[..end]);
    let plain = whole.split(|byte| *byte == b'\n').map(|line| (line.len() <= LIMIT).then(|| line.to_vec()));
    let expected: Vec<_> = plain.collect();
    assert!(lines == expected || (lines.is_empty() && !input.contains(&b'\n')), "pieces make no difference");
    let mut world = World { now: Instant::now(), node: Node::new(1), added: Vec::new() };
    if mode & 1 == 0 {
        world.line(INIT);
        world.line(TOPOLOGY);
    }
    for line in lines.iter().flatten() {
        if line.starts_with(b".") {
            world.pass(Duration::from_millis(line.len() as u64 * 100));
        } else {
            world.line(line);
        }
    }
});

struct World {
    now: Instant,
    node: Node,
    added: Vec<i64>,
}

impl World {
    fn line(&mut self, line: &[u8]) {
        match Message::from_line(line) {
            Ok(message) => {
                reads_the_same(&message);
                let from = message.src.clone();
                let is_gossip = matches!(message.body.payload, Payload::Gossip(_));
                match &message.body.payload {
                    Payload::Broadcast { message: entry } | Payload::Add { delta: entry } => {
                        self.added.push(*entry);
                    }
                    Payload::Gossip(message) => {
                        self.added.extend(message.entries.values().flatten().map(|(_, entry)| *entry));
                    }
                    _ => {}
                }
                self.node.handle_message(self.now, message);
                self.drain(Some(&from).filter(|_| !is_gossip));
            }
            Err(LineError::Body { answer, .. }) => {
                reads_the_same(&answer);
                let to = answer.dest.clone();
                self.node.refuse(*answer);
                self.drain(Some(&to));
            }
            Err(LineError::Form { start, .. }) => assert!(start.chars().count() <= 60),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.node.handle_timeout(self.now);
        assert!(self.node.poll_timeout().is_none_or(|at| at > self.now), "it would never rest");
        self.drain(None);
    }

    /// What it says reads the same, and one line of it is an answer at most, to whoever spoke.
    fn drain(&mut self, asker: Option<&String>) {
        let mut answers = 0;
        while let Some(message) = self.node.poll_transmit() {
            reads_the_same(&message);
            if !matches!(message.body.payload, Payload::Gossip(_)) {
                answers += 1;
                assert_eq!(Some(&message.dest), asker);
            }
            if let Payload::ReadOk(Read::Messages(all)) = &message.body.payload {
                assert!(all.is_sorted() && all.iter().all(|entry| self.added.contains(entry)));
            }
        }
        assert!(answers <= 1);
    }
}

fn reads_the_same(message: &Message) {
    let line = message.to_line();
    let (end, text) = line.split_last().expect("a line has an end");
    assert!(*end == b'\n' && !text.contains(&b'\n'));
    match Message::from_line(text) {
        Ok(again) => assert_eq!(&again, message),
        Err(error) => panic!("{error}"),
    }
}

const INIT: &[u8] =
    br#"{"src":"c1","dest":"n1","body":{"msg_id":1,"type":"init","node_id":"n1","node_ids":["n1","n2","n3"]}}"#;
const TOPOLOGY: &[u8] =
    br#"{"src":"c1","dest":"n1","body":{"msg_id":2,"type":"topology","topology":{"n1":["n2"]}}}"#;
const LIMIT: usize = 2_048;
