use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crust::Contact;
use crust_examples::mesh::Costs;

use crate::puppet::{Puppet, greater_than};

const BROADCAST: &str = env!("CARGO_BIN_EXE_broadcast");

#[test]
fn nodes_that_know_contacts_talk_over_streams() {
    let (mut nodes, mut contacts) = (Vec::new(), Vec::new());
    for place in 0..3 {
        let mut node = Node::start(&contacts);
        contacts.push(node.error());
        let name = format!("n{place}");
        let init = format!(r#""type":"init","node_id":"{name}","node_ids":["n0","n1","n2"]"#);
        assert!(node.ask(&init).contains("init_ok"));
        assert!(
            node.ask(&format!(r#""type":"topology","topology":{{"{name}":[]}}"#)).contains("topology_ok")
        );
        nodes.push(node);
    }
    assert!(nodes[0].ask(r#""type":"broadcast","message":7"#).contains("broadcast_ok"));
    for node in &mut nodes {
        // It takes some hundred milliseconds; the rest is for a busy machine.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !node.ask(r#""type":"read""#).contains("[7]") {
            assert!(Instant::now() < deadline, "it never learned of it");
            thread::sleep(Duration::from_millis(20)); // a node tells nobody by itself that it has learned
        }
    }
    if cfg!(target_os = "linux") {
        let threads: Vec<usize> = nodes.iter().map(|node| Costs::of(node.child.id()).threads).collect();
        assert!(threads.iter().all(|number| *number == THREADS_OVER_STREAMS), "{threads:?}");
    }
    for node in nodes {
        let (ended, said) = node.end_and_tell();
        assert!(ended, "{said}");
        // What the node says it carried for each of the two others is what the stack says.
        let counts: Vec<[u64; 4]> = said
            .lines()
            .filter(|line| line.starts_with("traffic "))
            .map(|line| {
                let numbers = line.split_whitespace().skip(2).map(|word| word.split_once('=').unwrap().1);
                numbers.map(|number| number.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap()
            })
            .collect();
        assert_eq!(counts.len(), 2, "{said}");
        for [written, read, sent, received] in counts {
            assert!(written > 0 && (written, read) == (sent, received), "{said}");
        }
    }
}

#[test]
fn bad_input_gets_an_error_and_stops_nobody() {
    let mut node = Node::start(&[]);
    let _contact = node.error();
    for (line, wanted) in [
        ("garbage", "not a message: "),
        (r#"{"src":"c1","dest":"n1","body":{"type":"dance"}}"#, "malformed or unknown"),
    ] {
        writeln!(node.input, "{line}").unwrap();
        let error = node.error();
        assert!(error.contains(wanted), "{error}");
    }
    writeln!(node.input, "{}", "x".repeat(5 << 20)).unwrap();
    assert_eq!(node.error(), "a line of more than 4194304 bytes was skipped");
    assert!(node.ask(r#""type":"broadcast","message":7"#).contains("send init"));
    assert!(node.ask(r#""type":"init","node_id":"n1","node_ids":["n1"]"#).contains("init_ok"));
    assert!(node.ask(r#""type":"dance""#).contains(r#""code":10"#));
    assert!(node.ask(r#""type":"topology","topology":{}"#).contains("does not name this node"));
    assert!(node.end());
}

#[test]
fn strange_peers_and_wrong_keys_stop_nobody() {
    let mut node = Node::start(&[]);
    let contact: Contact = node.error().parse().unwrap();
    assert!(node.ask(r#""type":"init","node_id":"n0","node_ids":["n0","n1"]"#).contains("init_ok"));
    let endpoint = contact.endpoints()[0].to_string();
    let mut stranger = Puppet::connect(greater_than(&endpoint), &endpoint);
    stranger.say(b"nonsense");
    assert!(node.error().contains("is not understood: not a message: "));
    stranger.say(br#"{"src":"puppet","dest":"n0","body":{"type":"dance"}}"#);
    // The second line about it that says the same would come too soon.
    stranger.say(br#"{"src":"n1","dest":"n0","body":{"type":"read"}}"#);
    assert!(node.error().ends_with("speaks as who it is not: n1"));
    stranger.write_raw(&[0xff; 16]); // a frame of 4 GiB
    assert_eq!(stranger.hear(), None, "its stream is cut");

    let other = crust::Identity::generate().public_key();
    let (place, _) = endpoint.split_once("pubkey=").unwrap();
    let elsewhere: crust::Endpoint = format!("{place}pubkey={other}").parse().unwrap();
    let mut lost = Node::start(&[Contact::new(other).endpoint(elsewhere).unwrap().to_string()]);
    let _contact = lost.error();
    assert!(lost.ask(r#""type":"init","node_id":"n1","node_ids":["n0","n1"]"#).contains("init_ok"));
    let error = lost.error();
    assert!(error.starts_with(&format!("{other} is not reached: ")), "{error}");
    for mut node in [node, lost] {
        assert!(node.ask(r#""type":"echo","echo":7"#).contains("echo_ok"));
        assert!(node.end());
    }
}

/// One has the node and all streams, however many; one reads its input, one accepts and one dials; one is the service's own.
const THREADS_OVER_STREAMS: usize = 5;

#[test]
fn wrong_words_are_told() {
    for (words, wanted) in [
        (&["--beacon", "x"][..], "cannot go on: \"x\" is no UDP port"),
        (&["--contacts", "x"], "cannot go on: a contact begins with crust1"),
        (&["--dance"], "cannot go on: usage: broadcast [--beacon PORT | --contacts [CONTACT]...]"),
    ] {
        let output = Command::new(BROADCAST).args(words).output().unwrap();
        assert!(!output.status.success());
        assert_eq!(String::from_utf8(output.stderr).unwrap().trim(), wanted);
    }
}

#[test]
fn a_node_on_two_pipes_is_three_threads() {
    let mut node = Node::start_with(&[]);
    assert!(node.ask(r#""type":"init","node_id":"n1","node_ids":["n1","n2"]"#).contains("init_ok"));
    assert!(node.ask(r#""type":"broadcast","message":7"#).contains("broadcast_ok"));
    if cfg!(target_os = "linux") {
        assert_eq!(Costs::of(node.child.id()).threads, 3, "one reads, one keeps time, one has the state");
    }
    assert!(node.end());
}

/// A node under way, with pipes to it. It ends when they do, so it does not outlive the test.
struct Node {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
    asked: u32,
}

impl Node {
    fn start(contacts: &[String]) -> Self {
        let mut words = vec!["--contacts"];
        words.extend(contacts.iter().map(String::as_str));
        Self::start_with(&words)
    }

    fn start_with(words: &[&str]) -> Self {
        let mut command = Command::new(BROADCAST);
        let mut child = command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let errors = BufReader::new(child.stderr.take().unwrap());
        Self { child, input, output: BufReader::new(output), errors, asked: 0 }
    }

    fn ask(&mut self, body: &str) -> String {
        self.asked += 1;
        writeln!(self.input, r#"{{"src":"c1","dest":"n","body":{{"msg_id":{},{body}}}}}"#, self.asked)
            .unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.contains(&format!(r#""in_reply_to":{}"#, self.asked)), "{line}");
        line
    }

    fn error(&mut self) -> String {
        let mut line = String::new();
        self.errors.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Ends its input and waits for it.
    fn end(self) -> bool {
        self.end_and_tell().0
    }

    /// The same, with what it still said.
    fn end_and_tell(self) -> (bool, String) {
        let Self { mut child, input, mut output, mut errors, .. } = self;
        drop(input);
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        errors.read_to_string(&mut rest).unwrap();
        (child.wait().unwrap().success(), rest)
    }
}
