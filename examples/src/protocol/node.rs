use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use super::{
    gossip::{Gossip, MAX_NAME, Settings},
    maelstrom::{Body, MALFORMED, Message, Payload, Read, TEMPORARILY_UNAVAILABLE},
};

/// A node of the workloads broadcast, counter, unique-ids and echo.
///
/// Messages and the time go in; after each call that takes `&mut self`, drain [`Node::poll_transmit`] and then read
/// [`Node::poll_timeout`].
#[derive(Debug)]
pub struct Node {
    run: u32,
    /// Empty until the harness has given a name.
    name: String,
    gossip: Option<Gossip>,
    messages: BTreeSet<i64>,
    sum: i64,
    generated: u64,
    broadcasts: bool,
    transmits: VecDeque<Message>,
}

impl Node {
    /// A node without a name, which comes with `init`. `run` tells this run from others of the same name.
    #[must_use]
    pub const fn new(run: u32) -> Self {
        Self {
            run,
            name: String::new(),
            gossip: None,
            messages: BTreeSet::new(),
            sum: 0,
            generated: 0,
            broadcasts: false,
            transmits: VecDeque::new(),
        }
    }

    /// Its name; empty until it has one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes a message of a client or of another node.
    pub fn handle_message(&mut self, now: Instant, message: Message) {
        let Message { src, body: Body { msg_id, payload, .. }, .. } = message;
        if let Payload::Gossip(message) = payload {
            if let Some(gossip) = &mut self.gossip {
                gossip.handle_message(now, &src, message);
            }
        } else if let Some(payload) = self.answer(now, payload) {
            self.reply(src, msg_id, payload);
        }
        self.collect();
    }

    /// Sends an error to whoever sent something that cannot be understood, if it waits for an answer.
    pub fn refuse(&mut self, answer: Message) {
        if let (Some(_), Payload::Error { .. }) = (answer.body.in_reply_to, &answer.body.payload) {
            self.reply(answer.dest, answer.body.in_reply_to, answer.body.payload);
        }
    }

    /// Does whatever is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(gossip) = &mut self.gossip {
            gossip.handle_timeout(now);
        }
        self.collect();
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Message> {
        self.transmits.pop_front()
    }

    /// When [`Node::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.gossip.as_ref()?.poll_timeout()
    }

    fn answer(&mut self, now: Instant, request: Payload) -> Option<Payload> {
        Some(match request {
            Payload::Init { node_id, node_ids } => self.start(now, &node_id, &node_ids),
            Payload::Topology { topology } if topology.contains_key(&self.name) => {
                self.broadcasts = true;
                Payload::TopologyOk
            }
            Payload::Topology { .. } => malformed("the topology does not name this node"),
            Payload::Echo { echo } => Payload::EchoOk { echo },
            Payload::Generate if self.gossip.is_some() => {
                self.generated += 1;
                Payload::GenerateOk { id: format!("{}/{}/{}", self.name, self.run, self.generated) }
            }
            Payload::Broadcast { message } => self.insert(now, message, Payload::BroadcastOk),
            Payload::Add { delta } => self.insert(now, delta, Payload::AddOk),
            Payload::Read if self.broadcasts => {
                Payload::ReadOk(Read::Messages(self.messages.iter().copied().collect()))
            }
            Payload::Read => Payload::ReadOk(Read::Value(self.sum)),
            Payload::Generate => not_yet(),
            Payload::InitOk
            | Payload::TopologyOk
            | Payload::BroadcastOk
            | Payload::AddOk
            | Payload::ReadOk(_)
            | Payload::EchoOk { .. }
            | Payload::GenerateOk { .. }
            | Payload::Gossip(_)
            | Payload::Error { .. } => return None,
        })
    }

    fn start(&mut self, now: Instant, name: &str, all: &[String]) -> Payload {
        if self.gossip.is_some() {
            return malformed("this node has a name already");
        }
        if !all.iter().any(|other| other == name) {
            return malformed("the list of nodes does not name this node");
        }
        if name.len() > MAX_NAME {
            return malformed(&format!("the name of a node has at most {MAX_NAME} bytes"));
        }
        let mut gossip = Gossip::new(now, name, self.run, Settings::default());
        for peer in all {
            gossip.add_peer(peer);
        }
        self.gossip = Some(gossip);
        name.clone_into(&mut self.name);
        Payload::InitOk
    }

    fn insert(&mut self, now: Instant, entry: i64, done: Payload) -> Payload {
        let Some(gossip) = &mut self.gossip else { return not_yet() };
        if gossip.insert(now, entry) {
            done
        } else {
            Payload::Error { code: TEMPORARILY_UNAVAILABLE, text: "the store is full".to_owned() }
        }
    }

    fn reply(&mut self, dest: String, in_reply_to: Option<u64>, payload: Payload) {
        let body = Body { msg_id: None, in_reply_to, payload };
        self.transmits.push_back(Message { src: self.name.clone(), dest, body });
    }

    /// Takes over what the gossip has to say and what it has learned.
    fn collect(&mut self) {
        let Some(gossip) = &mut self.gossip else { return };
        while let Some(entry) = gossip.poll_entry() {
            self.messages.insert(entry);
            self.sum = self.sum.wrapping_add(entry);
        }
        while let Some((dest, message)) = gossip.poll_transmit() {
            let body = Body { msg_id: None, in_reply_to: None, payload: Payload::Gossip(message) };
            self.transmits.push_back(Message { src: self.name.clone(), dest, body });
        }
    }
}

fn malformed(text: &str) -> Payload {
    Payload::Error { code: MALFORMED, text: text.to_owned() }
}

fn not_yet() -> Payload {
    Payload::Error { code: TEMPORARILY_UNAVAILABLE, text: "this node has no name yet: send init".to_owned() }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has to begin somewhere in time")]
mod tests {
    use super::*;

    fn say(node: &mut Node, payload: Payload) -> Option<Payload> {
        let body = Body { msg_id: Some(1), in_reply_to: None, payload };
        let now = Instant::now();
        node.handle_message(now, Message { src: "c1".to_owned(), dest: "n1".to_owned(), body });
        std::iter::from_fn(|| node.poll_transmit())
            .find(|answer| answer.dest == "c1")
            .map(|answer| answer.body.payload)
    }

    fn started() -> Node {
        let mut node = Node::new(1);
        let names = ["n1", "n2"].map(str::to_owned);
        let init = Payload::Init { node_id: names[0].clone(), node_ids: names.to_vec() };
        assert_eq!(say(&mut node, init), Some(Payload::InitOk));
        node
    }

    fn code(answer: Option<Payload>) -> Option<u32> {
        match answer {
            Some(Payload::Error { code, .. }) => Some(code),
            _ => None,
        }
    }

    #[test]
    fn nothing_is_promised_before_there_is_a_name() {
        let mut node = Node::new(1);
        assert_eq!(code(say(&mut node, Payload::Broadcast { message: 1 })), Some(TEMPORARILY_UNAVAILABLE));
        assert_eq!(code(say(&mut node, Payload::Generate)), Some(TEMPORARILY_UNAVAILABLE));
        assert_eq!(node.poll_timeout(), None);
    }

    #[test]
    fn a_topology_or_a_list_without_this_node_is_an_error() {
        let topology = [("n2".to_owned(), Vec::new())].into();
        assert_eq!(code(say(&mut started(), Payload::Topology { topology })), Some(MALFORMED));
        let init = Payload::Init { node_id: "n1".to_owned(), node_ids: vec!["n2".to_owned()] };
        assert_eq!(code(say(&mut Node::new(1), init)), Some(MALFORMED));
        let long = "n".repeat(MAX_NAME + 1);
        let init = Payload::Init { node_id: long.clone(), node_ids: vec![long] };
        assert_eq!(code(say(&mut Node::new(1), init)), Some(MALFORMED));
    }

    #[test]
    fn a_counter_and_a_broadcast_are_read_each_in_its_form() {
        let mut node = started();
        for delta in [3, 3, -1] {
            assert_eq!(say(&mut node, Payload::Add { delta }), Some(Payload::AddOk));
        }
        assert_eq!(say(&mut node, Payload::Read), Some(Payload::ReadOk(Read::Value(5))));
        let mut node = started();
        assert_eq!(
            say(&mut node, Payload::Topology { topology: [("n1".to_owned(), vec![])].into() }),
            Some(Payload::TopologyOk)
        );
        for message in [7, 7, 2] {
            assert_eq!(say(&mut node, Payload::Broadcast { message }), Some(Payload::BroadcastOk));
        }
        assert_eq!(say(&mut node, Payload::Read), Some(Payload::ReadOk(Read::Messages(vec![2, 7]))));
    }

    #[test]
    fn answers_are_not_answered() {
        assert_eq!(say(&mut started(), Payload::Error { code: 1, text: String::new() }), None);
        assert_eq!(say(&mut started(), Payload::ReadOk(Read::Value(1))), None);
    }
}
