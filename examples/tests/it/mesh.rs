use std::process::Command;

use crate::{
    puppet::{Puppet, less_than},
    support::Program,
};

const MESH: &str = env!("CARGO_BIN_EXE_mesh");

#[test]
fn wrong_words_are_told_and_stop_nobody() {
    for (words, wanted) in [
        (&["dance"][..], "usage: mesh [--seconds N] | mesh node [OPTION]..."),
        (&["--seconds", "x"], "a number of seconds is wanted"),
        (&["node", "three-threads"], "at \"three-threads\": usage: mesh node "),
        (&["node", "--name"], "at \"--name\": usage: mesh node "),
        (&["node", "--timeout", "0"], "at \"--timeout\": usage: mesh node "),
        (&["node", "--listen", "udp://127.0.0.1:0"], "cannot read where to listen: "),
        (&["node", "--key", env!("CARGO_MANIFEST_DIR")], env!("CARGO_MANIFEST_DIR")),
    ] {
        let output = Command::new(MESH).args(words).output().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(wanted), "{words:?}: {error}");
    }

    for threading in ["two-threads", "one-thread"] {
        let mut node = Program::start(MESH, &["node", threading, "--name", "n1"]);
        assert!(node.line().starts_with(r#"{"event":"listening","endpoint":"tcp://127.0.0.1:"#));
        for line in [
            "dance",
            "peers nonsense",
            "peers tcp://127.0.0.1:1?pubkey=x",
            "load",
            "load x",
            "load 0",
            "load 1 0",
            "load 1 1 1000000",
            &"x".repeat(100_000),
            "",
        ] {
            node.say(line);
        }
        node.hang_up();
        assert_eq!(node.end(), [r#"{"event":"report","name":"n1","peers":{}}"#]);
    }
}

#[test]
fn strange_frames_and_wrong_keys_stop_nobody() {
    for threading in ["two-threads", "one-thread"] {
        let start = |name| {
            // A puppet says nothing by itself, and must not be found silent.
            let node = Program::start(MESH, &["node", threading, "--name", name, "--timeout", "600"]);
            let endpoint =
                after(&node, r#"{"event":"listening","endpoint":""#).trim_end_matches("\"}").to_owned();
            (node, endpoint)
        };
        let ((mut ada, ada_at), (mut bob, bob_at)) = (start("ada"), start("bob"));
        ada.say(&format!("peers {bob_at}"));
        after(&ada, r#"{"event":"peers","known":1}"#);
        bob.say(&format!("peers {ada_at}"));
        after(&ada, r#"{"event":"up","peer":"bob","up":1,"#);

        let identity = less_than(&[&ada_at]);
        ada.say(&format!("peers tcp://127.0.0.1:1?pubkey={}", identity.public_key()));
        after(&ada, r#"{"event":"peers","known":2}"#);
        let mut stranger = Puppet::connect(identity, &ada_at);
        // A frame of a kind that there is not, one of 4 GiB, and a second hello.
        for (frame, wanted) in [
            (&[0, 0, 0, 1, 9][..], "a frame of unknown form"),
            (&[0xff; 16], "a frame of excessive length, or none"),
            (&[0, 0, 0, 1, 0], "a second hello or acknowledgement"),
        ] {
            after(&ada, r#"{"event":"up","peer":"puppet","up":2,"#);
            stranger.write_raw(frame);
            assert_eq!(stranger.hear(), None, "its stream is cut");
            let rest = after(&ada, r#"{"event":"down","peer":"puppet","reason":"it broke the protocol: "#);
            assert!(rest.starts_with(wanted), "{rest}");
            stranger = stranger.again(&ada_at);
        }

        // Where bob is, somebody else is looked for.
        let (place, _) = bob_at.split_once("pubkey=").unwrap();
        let other = crate::puppet::greater_than(&ada_at).public_key();
        ada.say(&format!("peers {place}pubkey={other}"));
        after(&ada, &format!(r#"{{"event":"unreached","peer":"{other}","reason":""#));
        ada.say("load 1");
        bob.say("load 1");
        after(&bob, r#"{"event":"loaded","#);
        drop(stranger);
        ada.hang_up();
        let last = ada.end().pop().unwrap();
        assert!(last.starts_with(r#"{"event":"report","name":"ada""#), "{last}");
    }
}

/// What follows this in the next line that begins with it.
fn after(node: &Program, begin: &str) -> String {
    std::iter::repeat_with(|| node.line())
        .find_map(|line| line.strip_prefix(begin).map(str::to_owned))
        .unwrap()
}

#[test]
fn the_one_command_of_the_readme_prints_its_table() {
    let lines = Program::start(MESH, &["--seconds", "1"]).end();
    assert_eq!(lines.len(), 2 + 6, "{lines:?}");
    for (line, (nodes, threading)) in lines[2..].iter().zip(
        [4, 8, 16].iter().flat_map(|nodes| ["two-threads", "one-thread"].map(|threading| (nodes, threading))),
    ) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..2], [nodes.to_string().as_str(), threading], "{line}");
        assert_eq!(words[words.len() - 2..], ["0", "0"], "lost and misplaced: {line}");
    }
}
