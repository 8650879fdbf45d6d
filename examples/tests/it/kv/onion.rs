use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crust::Endpoint;

use super::{Node, capture, in_each_configuration};
use crate::puppet::{Puppet, greater_than};

in_each_configuration!(
    four_nodes_between_see_nothing_but_their_neighbours,
    messages_go_over_named_nodes_and_one_way,
    what_is_not_answered_is_told,
    nonsense_in_packets_is_thrown_away,
);

/// A question over four nodes and the answer back, with what each of the four reads and writes written down. Tells how long it took.
pub(super) fn four_nodes_between_see_nothing_but_their_neighbours(configuration: &[&str]) -> Duration {
    let folder = Folder::new();
    let mut nodes: Vec<Node> = Vec::new();
    for place in 0..6 {
        let before = nodes.last().map(|node| node.endpoint.clone());
        let file = folder.file(place);
        let capture = ["--capture", file.to_str().unwrap()];
        let before: Vec<&str> = before.as_deref().into_iter().collect();
        nodes.push(Node::start(&[configuration, &capture, &before].concat()));
    }
    let way: Vec<Endpoint> = nodes.iter().map(|node| node.endpoint.parse().unwrap()).collect();
    let counts = [1, 2, 2, 2, 2, 1];
    let all: BTreeMap<String, usize> = nodes.iter().map(Node::key).zip(counts).collect();
    let mut others = all.clone();
    others.remove(&nodes[0].key());
    nodes[0].wait_for_nodes(&others);

    let (question, answer) = ("where is the treasure buried", "under the third palm tree");
    let to = nodes[5].key();
    nodes[0].say(&format!("onion {to} hops=4 {question}"));
    assert_eq!(nodes[5].read(), format!("message 1: {question}"));
    assert_eq!(nodes[5].ask(&format!("answer 1 {answer}")), "message 1 is answered");
    let line = nodes[0].read();
    assert!(line.starts_with(&format!("{to} answers: {answer}, in ")), "{line}");

    for (place, node) in nodes.iter_mut().enumerate().take(5).skip(1) {
        assert_eq!(node.count("onion_passed"), 2);
        capture::check_hop(&folder.file(place), place, &way, &[question, answer]);
    }
    // Captures do show what was said: how a neighbour is reached is in one of its messages, and no secret.
    let own = way[1].addr().to_string();
    assert!(capture::read(&folder.file(0)).iter().any(|one| capture::has(&one.bytes, own.as_bytes())));
    Duration::from_micros(line.split(' ').nth_back(1).unwrap().parse().unwrap())
}

fn messages_go_over_named_nodes_and_one_way(configuration: &[&str]) {
    let mut nodes = Node::clique(4, configuration);
    let keys: Vec<String> = nodes.iter().map(Node::key).collect();
    let others = keys[1..].iter().map(|key| (key.clone(), 3)).collect();
    nodes[0].wait_for_nodes(&others);
    nodes[0].say(&format!("onion {} via={},{} back={} one", keys[3], keys[2], keys[1], keys[1]));
    assert_eq!(nodes[3].read(), "message 1: one");
    assert_eq!(nodes[3].ask("answer 1 two"), "message 1 is answered");
    assert!(nodes[0].read().starts_with(&format!("{} answers: two, in ", keys[3])));
    assert_eq!([nodes[1].count("onion_passed"), nodes[2].count("onion_passed")], [2, 1]);
    let sent = nodes[0].ask(&format!("onion {} hops=2 one-way three", keys[3]));
    assert_eq!(sent, format!("sent to {} over 2 nodes", keys[3]));
    assert_eq!(nodes[3].read(), "message that cannot be answered: three");
    // And over a node that its neighbour has to be reached by.
    let far = nodes[0].ask(&format!("onion {} hops=5 x", keys[3]));
    assert!(far.starts_with("error: no way over 5 nodes from "), "{far}");
}

fn what_is_not_answered_is_told(configuration: &[&str]) {
    let mut nodes = Node::line(3, &[configuration, &["--answer-within", "500"]].concat());
    let keys: Vec<String> = nodes.iter().map(Node::key).collect();
    nodes[0].wait_for_nodes(&[(keys[1].clone(), 2), (keys[2].clone(), 1)].into());
    let error = nodes[0].ask(&format!("onion {} hops=1 hello", keys[2]));
    assert_eq!(nodes[2].read(), "message 1: hello");
    let wanted = format!(
        "error: {} has not answered in 500 ms: it has nothing to say, or a node on the way is gone or has another key by now",
        keys[2]
    );
    assert_eq!(error, wanted);
    assert_eq!(nodes[0].count("onion_waiting"), 0);
    // Too late: it goes on its way, and nobody waits for it.
    assert_eq!(nodes[2].ask("answer 1 hello"), "message 1 is answered");
    nodes[0].wait_for_count("onion_unreadable", 1);
}

fn nonsense_in_packets_is_thrown_away(configuration: &[&str]) {
    let mut nodes = Node::line(2, configuration);
    let mut stranger = Puppet::connect(greater_than(&nodes[0].endpoint), &nodes[0].endpoint);
    stranger.prove();
    nodes[0].wait_for_peers(2);
    let mut packet = vec![0; 4_096];
    stranger.say(&packet);
    packet.fill(9);
    packet[0] = 0;
    stranger.say(&packet);
    nodes[0].wait_for_count("onion_unreadable", 2);
    // Neither a packet nor text.
    stranger.say(&packet[1..]);
    assert!(nodes[0].complaint("is not understood").contains("not a message: "));
    nodes[0].ask("keep name 1");
    assert!(nodes[1].ask("get name").starts_with("name = 1"), "the others go on");
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("crust-kv-onion-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, place: usize) -> PathBuf {
        self.0.join(place.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
