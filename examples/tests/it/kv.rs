use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const KV: &str = env!("CARGO_BIN_EXE_kv");

#[test]
fn a_value_is_found_over_a_node_between_in_each_mode() {
    let first = Node::start(&[]);
    let second = Node::start(&[&first.endpoint]);
    let third = Node::start(&[&second.endpoint]);
    let mut nodes = [first, second, third];
    nodes[0].wait_for_peers(1);
    nodes[1].wait_for_peers(2);
    assert_eq!(nodes[2].ask("keep name a value with spaces"), "name is kept here");
    for mode in ["", "proxy", "mix", "asynch"] {
        let answer = nodes[0].ask(&format!("get name {mode}"));
        assert!(answer.starts_with("name = a value with spaces, by "), "{mode}: {answer}");
    }
    assert!(nodes[0].ask("get another").starts_with("another: not found"));
    assert!(nodes[1].ask("counters").contains("forwarded"));
    for node in nodes {
        assert!(node.end());
    }
}

#[test]
fn what_is_kept_on_disk_survives_the_death_of_the_process() {
    let file = std::env::temp_dir().join(format!("crust-kv-{}.redb", std::process::id()));
    let arguments = ["--store", file.to_str().unwrap()];
    let mut node = Node::start(&arguments);
    for number in 0..20 {
        assert_eq!(
            node.ask(&format!("keep name{number} value{number}")),
            format!("name{number} is kept here")
        );
    }
    node.child.kill().unwrap(); // SIGKILL
    node.child.wait().unwrap();
    let mut node = Node::start(&arguments);
    for number in 0..20 {
        assert!(
            node.ask(&format!("get name{number}")).starts_with(&format!("name{number} = value{number}, by "))
        );
    }
    assert!(node.end());
    std::fs::remove_file(file).unwrap();
}

#[test]
fn wrong_words_get_an_error_and_stop_nobody() {
    let mut node = Node::start(&[]);
    for (line, wanted) in [
        ("dance", "error: commands are: "),
        ("get", "error: commands are: "),
        ("get x sideways", "error: a mode is proxy, asynch or mix, not \"sideways\""),
        (&format!("keep {} x", "n".repeat(300)), "error: a name has at most 256 bytes"),
        (&"x".repeat(20_000), "error: a line has at most 16384 bytes"),
    ] {
        let answer = node.ask(line);
        assert!(answer.starts_with(wanted), "{answer}");
    }
    assert_eq!(node.ask("keep name 1"), "name is kept here");
    assert!(node.end());
    assert!(!Command::new(KV).arg("nonsense").output().unwrap().status.success());
}

/// The line of the README: `cargo test --release -p crust-examples --test it -- --ignored --nocapture kv_figures`.
#[test]
#[ignore = "means something on an idle machine only"]
fn kv_figures() {
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..16 {
        let others: Vec<String> = nodes.iter().map(|node| node.endpoint.clone()).collect();
        nodes.push(Node::start(&others.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    for node in &mut nodes {
        node.wait_for_peers(15);
    }
    for number in 0..1_000 {
        assert_eq!(
            nodes[number % 16].ask(&format!("put name{number} value{number}")),
            format!("name{number} is put")
        );
    }
    let (begin, modes) = (Instant::now(), ["proxy", "asynch", "mix"]);
    let finds = 4_000;
    let readers: Vec<_> = nodes
        .iter_mut()
        .enumerate()
        .map(|(place, node)| {
            let mut output = node.output.take().unwrap();
            let count = (0..finds).filter(|find| find % 16 == place).count();
            thread::spawn(move || (0..count).map(|_| read_line(&mut output)).collect::<Vec<_>>())
        })
        .collect();
    for find in 0..finds {
        let due = begin + Duration::from_millis(5) * u32::try_from(find).unwrap();
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let number = find * 7 % 1_000;
        writeln!(nodes[find % 16].input, "get name{number} {}", modes[find % 3]).unwrap();
    }
    let lines: Vec<String> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
    let right = lines.iter().filter(|line| {
        let (name, value) = line.split_once(" = value").unwrap_or(("", "?"));
        name.strip_prefix("name") == value.split_once(',').map(|(number, _)| number)
    });
    let right = right.count();
    let mut micros: Vec<u64> =
        lines.iter().map(|line| line.split(' ').nth_back(1).unwrap().parse().unwrap()).collect();
    micros.sort_unstable();
    let (p50, p99) = (micros[finds / 2], micros[finds * 99 / 100]);
    println!(
        "16 nodes, 200 finds/s: {right} of {finds} right, p50 {:.1} ms, p99 {:.1} ms",
        p50 as f64 / 1e3,
        p99 as f64 / 1e3
    );
    assert!(right * 1_000 >= finds * 999 && p99 <= 100_000);
}

/// A node under way. It ends with its input, so it does not outlive the test.
struct Node {
    child: Child,
    input: ChildStdin,
    /// Until a thread takes it.
    output: Option<BufReader<ChildStdout>>,
    endpoint: String,
}

impl Node {
    fn start(others: &[&str]) -> Self {
        let mut child =
            Command::new(KV).args(others).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut output = BufReader::new(output);
        let endpoint = read_line(&mut output);
        Self { child, input, output: Some(output), endpoint }
    }

    /// Says a line and reads one.
    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        read_line(self.output.as_mut().unwrap())
    }

    fn wait_for_peers(&mut self, number: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut line = self.ask("peers");
            let mut peers = 0;
            while line != "end of peers" {
                peers += 1;
                line = read_line(self.output.as_mut().unwrap());
            }
            if peers >= number {
                return;
            }
            assert!(Instant::now() < deadline, "only {peers} peers came");
            thread::sleep(Duration::from_millis(20)); // a node does not tell of peers unasked
        }
    }

    /// Ends its input and waits for it.
    fn end(self) -> bool {
        let Self { mut child, input, .. } = self;
        drop(input);
        child.wait().unwrap().success()
    }
}

fn read_line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    assert_ne!(output.read_line(&mut line).unwrap(), 0, "it has ended");
    line.trim().to_owned()
}
