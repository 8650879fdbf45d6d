use std::process::Command;

use crate::support::Program;

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
