use std::process::Command;

use crust_examples::protocol::kv::{ArcRef, Message, Record, Reference as _};

use super::{Node, in_each_configuration, node::KV};
use crate::puppet::{Puppet, greater_than};

in_each_configuration!(
    a_line_of_six_finds_what_is_near_enough_in_every_mode,
    whoever_waits_for_a_killed_node_gets_an_answer,
    copies_are_kept_where_and_as_long_as_the_rule_says,
    as_many_values_come_as_are_wanted,
    the_stack_counts_what_the_node_claims,
    what_its_author_has_not_signed_goes_nowhere,
    strange_messages_and_frames_stop_nobody,
);

fn a_line_of_six_finds_what_is_near_enough_in_every_mode(configuration: &[&str]) {
    let mut nodes = Node::line(6, &[configuration, &["--lifetime", "2500"]].concat());
    let proved =
        |nodes: &mut [Node]| -> Vec<u64> { nodes.iter_mut().map(|node| node.count("proved")).collect() };
    assert_eq!(nodes[3].ask("keep near a value with spaces"), "near is kept here");
    assert_eq!(nodes[5].ask("keep far 1"), "far is kept here");
    // Streams that have been authenticated: of neighbours, and of those who bring answers.
    let mut streams = vec![1, 2, 2, 2, 2, 1];
    assert_eq!(proved(&mut nodes), streams);
    for (mode, ends) in [("proxy", None), ("mix=2", None), ("mix=1", Some((1, 3))), ("asynch", Some((0, 3)))]
    {
        let answer = nodes[0].ask(&format!("get near {mode} hops=3"));
        assert!(answer.starts_with("near = a value with spaces, by "), "{mode}: {answer}");
        if let Some((home, holder)) = ends {
            streams[home] += 1;
            streams[holder] += 1;
        }
        assert_eq!(proved(&mut nodes), streams, "{mode}");
        if mode == "asynch" {
            assert_eq!([nodes[1].count("waiting"), nodes[2].count("waiting")], [0, 0]);
        }
    }
    for mode in ["proxy", "mix=1", "mix=2", "asynch"] {
        let answer = nodes[0].ask(&format!("get far {mode} hops=6"));
        assert!(answer.starts_with("far = 1, by "), "{mode}: {answer}");
        let answer = nodes[0].ask(&format!("get far {mode} hops=3"));
        assert!(answer.starts_with("far: not found"), "{mode}: {answer}");
    }
    for node in &mut nodes {
        node.wait_for_count("waiting", 0);
        node.wait_for_count("remembered", 0);
    }
}

fn whoever_waits_for_a_killed_node_gets_an_answer(configuration: &[&str]) {
    let mut nodes = Node::line(3, configuration);
    nodes[2].signal("-STOP"); // so that its neighbour keeps waiting
    for number in 0..50 {
        nodes[0].say(&format!("get name{number}"));
    }
    // By then all have come; each is still waited for, if the machine is not too busy for that.
    nodes[1].wait_for_count("asked", 50);
    nodes[1].signal("-KILL");
    let mut answers: Vec<String> = (0..50).map(|_| nodes[0].read()).collect();
    answers.sort();
    assert!(answers.iter().all(|answer| answer.contains(": not found, in ")), "{answers:?}");
    assert_eq!(nodes[0].ask("keep name 1"), "name is kept here");
}

pub(super) fn copies_are_kept_where_and_as_long_as_the_rule_says(configuration: &[&str]) {
    let (caches, plain) = ([configuration, &["--cache", "5000"]].concat(), configuration);
    let mut first = Node::start(plain);
    let mut second = Node::start(&[&caches[..], &[&first.endpoint]].concat());
    let mut third = Node::start(&[plain, &[&second.endpoint]].concat());
    let mut fourth = Node::start(&[plain, &[&third.endpoint]].concat());
    second.wait_for_peers(2);
    third.wait_for_peers(2);
    fourth.ask("keep name 1");
    assert!(first.ask("get name hops=3").starts_with("name = 1, by "));
    assert!(second.ask("get name hops=0").starts_with("name = 1, by "), "it keeps copies");
    assert!(third.ask("get name hops=0").starts_with("name: not found"), "it does not");
    assert!(first.ask("get name hops=0").starts_with("name: not found"), "nor who has asked");
    second.wait_for_count("cached", 0);
    assert!(second.ask("get name hops=0").starts_with("name: not found"));
}

pub(super) fn as_many_values_come_as_are_wanted(configuration: &[&str]) {
    let mut nodes = Node::clique(4, configuration);
    for node in &mut nodes[1..] {
        node.ask("keep name 1");
    }
    let mut authors = [nodes[0].ask("get name wanted=2"), nodes[0].read()].map(|line| {
        assert!(line.starts_with("name = 1, by "), "{line}");
        line.split(' ').nth(4).unwrap().to_owned()
    });
    authors.sort();
    assert_ne!(authors[0], authors[1]);
    assert_eq!(nodes[0].ask("keep other 1"), "other is kept here", "no third one came");
}

fn the_stack_counts_what_the_node_claims(configuration: &[&str]) {
    let mut nodes = Node::line(2, configuration);
    nodes[1].ask("keep name 1");
    nodes[0].ask("get name");
    for node in nodes {
        let traffic = node.end();
        assert_eq!(traffic.len(), 1, "{traffic:?}");
        let words: Vec<&str> = traffic[0].split(' ').collect();
        let number = |word: &str| word.split_once('=').unwrap().1.parse::<u64>().unwrap();
        let [written, read, sent, received] = [2, 3, 4, 5].map(|place| number(words[place]));
        assert!(written > 0 && (written, read) == (sent, received), "{traffic:?}");
    }
}

pub(super) fn what_its_author_has_not_signed_goes_nowhere(configuration: &[&str]) {
    let mut nodes = Node::line(2, configuration);
    let mut liar = Puppet::connect(greater_than(&nodes[0].endpoint), &nodes[0].endpoint);
    liar.prove();
    nodes[0].wait_for_peers(2);
    let sign = |purpose: &str, bytes: &[u8]| liar.sign(purpose, bytes);
    let mut forged = Record::new(liar.key(), "name", b"1", 1, sign).unwrap();
    forged.value = b"2".to_vec();
    liar.say(&Message::<ArcRef>::Put(ArcRef::new(forged.clone())).to_bytes());
    nodes[0].wait_for_count("refused_records", 1);
    assert!(nodes[0].ask("get name hops=0").starts_with("name: not found"), "it is not stored");

    // And as an answer to a question of the other node, which goes through the first.
    nodes[1].say("get name hops=2");
    let ask = liar.hear_question().expect("it is asked");
    let answer = Message::<ArcRef>::Found { id: ask.id(), records: vec![ArcRef::new(forged)], share: 0 };
    liar.say(&answer.to_bytes());
    assert!(nodes[1].read().starts_with("name: not found"), "it is not forwarded");
    assert_eq!([nodes[0].count("refused_records"), nodes[1].count("refused_records")], [2, 0]);
}

fn strange_messages_and_frames_stop_nobody(configuration: &[&str]) {
    let mut nodes = Node::line(2, configuration);
    let mut stranger = Puppet::connect(greater_than(&nodes[0].endpoint), &nodes[0].endpoint);
    stranger.prove();
    stranger.say(br#"{"Dance":{"id":1}}"#);
    assert!(nodes[0].complaint("is not understood").contains("not a message: unknown variant `Dance`"));
    assert_eq!(nodes[0].count("unreadable"), 1);
    // Of what it says next the user hears only so much as he can read.
    for number in 0..1_000 {
        stranger.say(format!("nonsense {number}").as_bytes());
    }
    // A frame of 4 GiB.
    stranger.write_raw(&[0xff; 16]);
    while stranger.hear().is_some() {} // until its stream is cut
    nodes[0].wait_for_count("unreadable", 1_001);
    let complaints = nodes[0].complaints();
    assert!(complaints.len() < 100, "{} lines", complaints.len());
    nodes[0].wait_for_count("online", 1);
    nodes[0].ask("keep name 1");
    assert!(nodes[1].ask("get name").starts_with("name = 1"), "the others go on");
}

/// One that is let in by its stream, but not by the gate, comes again and again.
#[test]
fn who_is_sent_away_all_the_time_does_not_fill_the_users_screen() {
    let mut node = Node::start(&["--threading", "local"]);
    let first = Puppet::connect(greater_than(&node.endpoint), &node.endpoint);
    for _ in 0..60 {
        let mut again = first.again(&node.endpoint);
        again.say_if_it_goes(b"nonsense");
        while again.hear().is_some() {}
    }
    node.wait_for_count("links", 0);
    assert!(node.count("refused_peers") >= 60);
    let complaints = node.complaints();
    let sent_away = complaints.iter().filter(|line| line.contains("is sent away")).count();
    assert!((1..30).contains(&sent_away), "{complaints:?}");
}

#[test]
fn every_place_and_the_pool_do_the_same() {
    let mut before: Option<Node> = None;
    for arguments in [
        &["--threading", "pool"][..],
        &["--threading", "pool", "--references", "rc"],
        &["--threading", "local", "--place", "store=own", "--place", "gate=pool"],
        &["--threading", "threads", "--place", "router=caller", "--references", "rc", "--hide-origin"],
    ] {
        let endpoint = before.as_ref().map(|node| node.endpoint.clone());
        let mut node =
            Node::start(&[arguments, &endpoint.as_deref().into_iter().collect::<Vec<_>>()].concat());
        node.wait_for_peers(usize::from(before.is_some()));
        assert_eq!(node.ask("put name 1"), "name is put");
        assert!(node.ask("get name").starts_with("name = 1, by "), "{arguments:?}");
        before = Some(node);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn all_in_one_thread_is_three_threads_and_one_that_reads() {
    let nodes = Node::line(3, super::CONFIGURATIONS[2].1);
    // The services and streams; one that waits for streams, one that dials; and one that sits in a read of the user's input.
    assert_eq!(nodes[1].status("Threads"), 3 + 1);
}

#[test]
fn what_is_kept_on_disk_survives_the_death_of_the_process() {
    for (number, (_, configuration)) in super::CONFIGURATIONS.iter().enumerate() {
        let file = std::env::temp_dir().join(format!("crust-kv-{}-{number}.redb", std::process::id()));
        let arguments = [configuration, &["--store", file.to_str().unwrap()][..]].concat();
        let mut node = Node::start(&arguments);
        for number in 0..20 {
            let kept = node.ask(&format!("keep name{number} value{number}"));
            assert_eq!(kept, format!("name{number} is kept here"));
        }
        node.signal("-KILL");
        drop(node);
        let mut node = Node::start(&arguments);
        for number in 0..20 {
            let answer = node.ask(&format!("get name{number}"));
            assert!(answer.starts_with(&format!("name{number} = value{number}, by ")), "{answer}");
        }
        drop(node);
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn wrong_words_get_an_error_and_stop_nobody() {
    for (_, configuration) in super::CONFIGURATIONS {
        let mut node = Node::start(configuration);
        let itself = format!("connect {}", node.endpoint);
        let stranger = crust::Identity::generate().public_key();
        for (line, wanted) in [
            ("dance", "error: commands are: "),
            ("get", "error: commands are: "),
            ("get x sideways", "error: a mode is proxy, asynch, mix or mix=HOPS, not \"sideways\""),
            ("get x hops=many", "error: hops=many: a number up to 255 is wanted"),
            ("onion", "error: commands are: "),
            ("onion x y", "error: \"x\" is neither a key nor an endpoint: "),
            (&format!("onion {} hops=9 x", node.endpoint), "error: hops=9: a number up to 7 is wanted"),
            (&format!("onion {} x", node.endpoint), "error: that is this node itself"),
            (&format!("onion {stranger} x"), &format!("error: {stranger} has told nothing of itself here: ")),
            ("answer x y", "error: x: the number of a message is wanted"),
            ("answer 7 y", "error: there is no message 7 to answer: "),
            ("connect nowhere", "error: \"nowhere\" is no endpoint: "),
            (&format!("keep {} x", "n".repeat(300)), "error: a name has at most 256 bytes"),
            (&"x".repeat(20_000), "error: a line has at most 16384 bytes"),
        ] {
            let answer = node.ask(line);
            assert!(answer.starts_with(wanted), "{answer}");
        }
        assert!(node.ask(&itself).starts_with("dialling "));
        assert_eq!(node.read(), "error: that is this node itself");
        assert_eq!(node.ask("keep name 1"), "name is kept here");
        assert!(node.end().is_empty());
    }
}

#[test]
fn a_wrong_key_is_told_and_stops_nobody() {
    let mut right = Node::start(&[]);
    let (place, _) = right.endpoint.split_once("pubkey=").unwrap();
    let other = crust::Identity::generate().public_key();
    let mut wrong = Node::start(&[&format!("{place}pubkey={other}")]);
    assert!(wrong.complaint("is not reached").starts_with(&other.to_string()));
    assert_eq!(wrong.ask("keep name 1"), "name is kept here");
    assert_eq!(right.ask("keep name 1"), "name is kept here");

    let mut closed = Node::start(&["--allow", &other.to_string()]);
    let guest = Node::start(&[&closed.endpoint]);
    assert!(closed.complaint("is sent away").contains("it is none of those that are allowed"));
    guest.complaint("is given up: it does not let this node in");
    assert!(closed.peers().is_empty());
}

#[test]
fn wrong_arguments_are_told() {
    for (arguments, wanted) in [
        (&["nonsense"][..], "nonsense: "),
        (&["--threading", "green"], "--threading: a threading is one of threads pool local, not \"green\""),
        (
            &["--place", "cellar=own"],
            "--place: a service is one of gate router store api onion, not \"cellar\"",
        ),
        (&["--place", "store"], "--place: SERVICE=PLACE is wanted"),
        (&["--lifetime", "long"], "--lifetime: a number of milliseconds is wanted, not \"long\""),
        (&["--store"], "--store: something must follow"),
        (&["--stove", "x"], "--stove: there is no such option"),
    ] {
        let output = Command::new(KV).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.starts_with(wanted), "{said}");
        assert!(said.contains("usage: kv "), "{said}");
    }
}
