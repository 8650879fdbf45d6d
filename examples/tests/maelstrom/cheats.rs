//! The judge is judged: each way to cheat must be seen, and for the right reason.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

use crust_examples::protocol::{
    Node,
    maelstrom::{Body, Message, Payload, Read},
};

use crate::{
    judge::{Limits, Options, Report, Workload},
    virtual_time::{Participant, run_nodes},
};

/// A node that is honest but for one thing.
struct Cheat {
    node: Node,
    how: How,
    /// What all cheats of a run know, without a message.
    ether: Rc<RefCell<BTreeSet<i64>>>,
    /// What goes out later.
    held: VecDeque<(Instant, Message)>,
    out: VecDeque<Message>,
    now: Instant,
    began: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Honest,
    KeepsToItself,
    Forgets,
    Invents,
    Foresees,
    Smuggles,
    HoldsBackAnswers,
    Dawdles,
    Chatters,
    SpeaksAsAnother,
    SpeaksToNobody,
    FallsSilent,
    AnswersNonsense,
    CountsTwice,
    RepeatsIds,
    EchoesWrong,
}

impl Cheat {
    fn send(&mut self, mut message: Message) {
        let to_node = matches!(message.body.payload, Payload::Gossip(_));
        match (self.how, &mut message.body.payload) {
            (How::KeepsToItself | How::Smuggles, Payload::Gossip(_)) => return,
            (How::FallsSilent, Payload::ReadOk(_) | Payload::GenerateOk { .. })
                if self.now - self.began > Duration::from_secs(2) =>
            {
                return;
            }
            (How::Invents, Payload::ReadOk(Read::Messages(list))) => list.push(-7),
            (How::Foresees, Payload::ReadOk(Read::Messages(list))) => {
                list.extend(list.iter().max().map(|last| last + 2));
            }
            (How::Smuggles, Payload::ReadOk(Read::Messages(list))) => {
                *list = self.ether.borrow().iter().copied().collect();
            }
            (How::AnswersNonsense, payload @ Payload::ReadOk(_)) => *payload = Payload::AddOk,
            (How::RepeatsIds, Payload::GenerateOk { id }) => id.truncate(6),
            (How::EchoesWrong, Payload::EchoOk { echo }) => *echo = "something else".into(),
            (How::SpeaksAsAnother, Payload::Gossip(_)) => "n1".clone_into(&mut message.src),
            (How::SpeaksToNobody, Payload::Gossip(_)) => "n99".clone_into(&mut message.dest),
            (How::HoldsBackAnswers, Payload::BroadcastOk) | (How::Dawdles, Payload::Gossip(_)) => {
                self.held.push_back((self.now + Duration::from_millis(700), message));
                return;
            }
            _ => {}
        }
        let copies = if self.how == How::Chatters && to_node { 100 } else { 1 };
        self.out.extend(std::iter::repeat_n(message, copies));
    }

    fn collect(&mut self, now: Instant) {
        self.now = now;
        while self.held.front().is_some_and(|(at, _)| *at <= now) {
            self.out.extend(self.held.pop_front().map(|(_, message)| message));
        }
        while let Some(message) = self.node.poll_transmit() {
            self.send(message);
        }
    }
}

impl Participant for Cheat {
    fn handle_message(&mut self, now: Instant, message: Message) {
        if let Payload::Broadcast { message: value } = message.body.payload {
            self.ether.borrow_mut().insert(value);
            if self.how == How::Forgets && value % 10 == 0 {
                let body =
                    Body { payload: Payload::BroadcastOk, in_reply_to: message.body.msg_id, msg_id: None };
                return self.out.push_back(Message { src: message.dest, dest: message.src, body });
            }
        }
        if let (How::CountsTwice, Payload::Add { .. }) = (self.how, &message.body.payload) {
            let mut again = message.clone();
            again.body.msg_id = None;
            self.node.handle_message(now, again);
        }
        self.node.handle_message(now, message);
        self.collect(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.node.handle_timeout(now);
        self.collect(now);
    }

    fn poll_transmit(&mut self) -> Option<Message> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.node.poll_timeout(), self.held.front().map(|(at, _)| *at)].into_iter().flatten().min()
    }
}

/// Five nodes, the first of which cheats; or all of them do, where one alone could not.
fn judged(how: How, workload: Workload) -> Report {
    let limits =
        Limits { messages: Some(20.0), median: Some(400), max: Some(800), wait: Some(100), available: None };
    let options = Options {
        workload,
        time: Duration::from_secs(5),
        recovery: Duration::from_secs(4),
        latency: Duration::from_millis(50),
        limits: match workload {
            Workload::Broadcast => limits,
            Workload::UniqueIds | Workload::Echo => Limits { available: Some(1.0), ..Limits::default() },
            _ => Limits::default(),
        },
        ..Options::default()
    };
    let ether = Rc::default();
    let together = matches!(how, How::Smuggles | How::Dawdles);
    let node = |place: usize| Cheat {
        node: Node::new(u32::try_from(place).unwrap()),
        how: if place == 0 || together { how } else { How::Honest },
        ether: Rc::clone(&ether),
        held: VecDeque::new(),
        out: VecDeque::new(),
        now: Instant::now(),
        began: Instant::now(),
    };
    run_nodes(options, (0..5).map(node).collect())
}

#[test]
fn the_honest_pass() {
    for workload in [
        Workload::Broadcast,
        Workload::Counter,
        Workload::GrowingCounter,
        Workload::UniqueIds,
        Workload::Echo,
    ] {
        let report = judged(How::Honest, workload);
        assert!(report.failures.is_empty(), "{workload:?}: {:?}", report.failures);
    }
}

#[test]
fn each_way_to_cheat_is_seen() {
    for (how, workload, wanted) in [
        (How::KeepsToItself, Workload::Broadcast, "lost: "),
        (How::Forgets, Workload::Broadcast, "lost: "),
        (How::Invents, Workload::Broadcast, "invented: node 0 read -7"),
        (How::Foresees, Workload::Broadcast, " before it was sent"),
        (How::Smuggles, Workload::Broadcast, "smuggled: "),
        (How::HoldsBackAnswers, Workload::Broadcast, "wait for an answer: "),
        (How::Dawdles, Workload::Broadcast, "maximum latency: "),
        (How::Chatters, Workload::Broadcast, "messages per operation: "),
        (How::SpeaksAsAnother, Workload::Broadcast, "node 0 spoke as n1"),
        (How::SpeaksToNobody, Workload::Broadcast, "node 0 spoke to n99"),
        (How::FallsSilent, Workload::Broadcast, "silent: node 0"),
        (How::AnswersNonsense, Workload::Broadcast, "node 0 gave a wrong answer: AddOk"),
        (How::KeepsToItself, Workload::Counter, "wrong sum: "),
        (How::CountsTwice, Workload::Counter, "wrong sum: "),
        (How::FallsSilent, Workload::Counter, "silent: node 0"),
        (How::CountsTwice, Workload::GrowingCounter, "wrong sum: "),
        (How::FallsSilent, Workload::UniqueIds, "answered: "),
        (How::RepeatsIds, Workload::UniqueIds, "repeated id "),
        (How::EchoesWrong, Workload::Echo, "wrong echo of "),
    ] {
        let report = judged(how, workload);
        let seen = report.failures.iter().any(|failure| failure.contains(wanted));
        assert!(seen, "{how:?} in {workload:?} was not seen: {report:?}");
    }
}

/// Everything goes over the first node: few messages, short ways, and nothing without it.
struct Star {
    name: String,
    all: Vec<String>,
    values: BTreeSet<i64>,
    next: Option<Instant>,
    out: VecDeque<Message>,
}

impl Participant for Star {
    fn handle_message(&mut self, now: Instant, message: Message) {
        let payload = match message.body.payload {
            Payload::Init { node_id, node_ids } => {
                self.name = node_id;
                self.all = node_ids;
                self.next = Some(now);
                Payload::InitOk
            }
            Payload::Topology { .. } => Payload::TopologyOk,
            Payload::Broadcast { message } => {
                self.values.insert(message);
                Payload::BroadcastOk
            }
            Payload::Read => Payload::ReadOk(Read::Messages(self.values.iter().copied().collect())),
            // Its own kind of message, in a form that the judge carries.
            Payload::ReadOk(Read::Messages(list)) => return self.values.extend(list),
            _ => return,
        };
        let body = Body { msg_id: None, in_reply_to: message.body.msg_id, payload };
        self.out.push_back(Message { src: self.name.clone(), dest: message.src, body });
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.next = Some(now + Duration::from_millis(200));
        let hub = &self.all[0];
        let to = if *hub == self.name { &self.all[1..] } else { &self.all[..1] };
        for dest in to {
            let payload = Payload::ReadOk(Read::Messages(self.values.iter().copied().collect()));
            let body = Body { msg_id: None, in_reply_to: None, payload };
            self.out.push_back(Message { src: self.name.clone(), dest: dest.clone(), body });
        }
    }

    fn poll_transmit(&mut self) -> Option<Message> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }
}

#[test]
fn a_node_on_which_all_depends_is_seen_by_cutting_it_off() {
    let star = |cut| {
        let node = |_| Star {
            name: String::new(),
            all: Vec::new(),
            values: BTreeSet::new(),
            next: None,
            out: VecDeque::new(),
        };
        let limits = Limits {
            messages: Some(20.0),
            median: Some(1_000),
            max: Some(2_000),
            wait: Some(100),
            available: None,
        };
        let (time, recovery) = (Duration::from_secs(5), Duration::from_secs(4));
        let latency = Duration::from_millis(100);
        let options = Options { time, recovery, latency, cut, limits, ..Options::default() };
        run_nodes(options, (0..5).map(node).collect()).failures
    };
    assert_eq!(star(None), [""; 0]);
    assert_eq!(star(Some(3)), [""; 0]);
    assert!(
        star(Some(0)).iter().any(|failure| failure.starts_with("median latency: ")),
        "{:?}",
        star(Some(0))
    );
}
