//! An onion message over four hosts with addresses of their own, as their network interfaces carry it. Linux, root, what nat-lab needs, and
//! tcpdump; elsewhere it prints `NOT RUN: …` and ends well, and the gate does not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("NOT RUN: onion messages between hosts: network namespaces are Linux's");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let ready = nat_lab::Lab::check().map_err(|error| error.to_string()).and_then(|()| {
        let tcpdump = std::process::Command::new("tcpdump").arg("--version").output();
        tcpdump.map(drop).map_err(|error| format!("tcpdump: {error}"))
    });
    let case = ("four_hosts_carry_neither_text_nor_strangers_addresses", linux::four_hosts as fn());
    nat_lab::run_cases("onion messages between hosts", ready, &[case])
}

#[cfg(target_os = "linux")]
#[path = "it/kv/capture.rs"]
mod capture;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::process::{Child, ChildStdin, Stdio};
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::{Duration, Instant};

    use crust::Endpoint;
    use nat_lab::{Lab, Process, Site, Topology};

    use crate::capture::{check_hop, has};

    const HOSTS: [&str; 6] = ["a1", "b1", "c1", "d1", "e1", "f1"];
    const QUESTION: &str = "where is the treasure buried";
    const ANSWER: &str = "under the third palm tree";

    pub(crate) fn four_hosts() {
        let lab = HOSTS.iter().fold(Topology::new(), |lab, _| lab.site(Site::new([]))).build().unwrap();
        let file = |kind: &str, host: &str| lab.folder().join(format!("{host}.{kind}"));
        let dumps = HOSTS.map(|host| {
            let mut command = lab.node(host).command("tcpdump");
            command.args(["-i", "eth0", "-p", "--immediate-mode", "-U", "-Z", "root", "-w"]);
            let mut dump = Process::start(command.arg(file("pcap", host))).unwrap();
            dump.wait_for("listening on", PATIENCE).unwrap();
            dump
        });
        let mut nodes: Vec<Node> = Vec::new();
        for host in HOSTS {
            let before = nodes.last().map(|node| node.endpoint.as_str());
            let node = Node::start(&lab, host, &file("capture", host), before);
            nodes.push(node);
        }
        nodes[0].wait_for_nodes();
        let to = nodes[5].endpoint.clone();
        nodes[0].say(&format!("onion {to} hops=4 {QUESTION}"));
        assert_eq!(nodes[5].line(), format!("message 1: {QUESTION}"));
        nodes[5].say(&format!("answer 1 {ANSWER}"));
        assert_eq!(nodes[5].line(), "message 1 is answered");
        let line = nodes[0].line();
        assert!(line.contains(&format!(" answers: {ANSWER}, in ")), "{line}");

        let way: Vec<Endpoint> = nodes.iter().map(|node| node.endpoint.parse().unwrap()).collect();
        for (place, host) in HOSTS.iter().enumerate().take(5).skip(1) {
            let frames = frames_with(&file("pcap", host), [place - 1, place + 1].map(|near| way[near]));
            check_frames(&frames, place, &way);
            check_hop(&file("capture", host), place, &way, &[QUESTION, ANSWER]);
            println!("{}: {} frames: neither text, nor strangers' addresses", host, frames.len());
        }
        drop(dumps);
    }

    /// What an interface has carried, once both neighbours have sent and got two packets: tcpdump is a little behind.
    fn frames_with(file: &Path, neighbours: [Endpoint; 2]) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frames = frames(&fs::read(file).unwrap());
            let carried = |from: usize, neighbour: &Endpoint| {
                let address = neighbour.addr().ip();
                let of =
                    frames.iter().filter(|frame| addresses(frame).is_some_and(|both| both[from] == address));
                of.map(Vec::len).sum::<usize>()
            };
            if neighbours.iter().all(|one| carried(0, one) > 2 * 4_096 && carried(1, one) > 2 * 4_096) {
                return frames;
            }
            assert!(Instant::now() < deadline, "tcpdump has seen {} frames", frames.len());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn check_frames(frames: &[Vec<u8>], place: usize, way: &[Endpoint]) {
        let seen: BTreeSet<Ipv4Addr> = frames.iter().filter_map(|frame| addresses(frame)).flatten().collect();
        for (other, endpoint) in way.iter().enumerate() {
            let wanted = other.abs_diff(place) <= 1;
            let std::net::IpAddr::V4(address) = endpoint.addr().ip() else { panic!("{endpoint}") };
            assert_eq!(seen.contains(&address), wanted, "{} at place {place}", endpoint.addr());
            // Streams are encrypted: nor is there any text of it.
            for text in [endpoint.addr().to_string(), endpoint.addr().ip().to_string()] {
                assert!(frames.iter().all(|frame| !has(frame, text.as_bytes())), "{text} at place {place}");
            }
        }
        for text in [QUESTION, ANSWER] {
            assert!(frames.iter().all(|frame| !has(frame, text.as_bytes())), "{text} at place {place}");
        }
    }

    /// Source and destination of an IPv4 packet in an Ethernet frame, or those who speak and are sought in ARP.
    fn addresses(frame: &[u8]) -> Option<[Ipv4Addr; 2]> {
        let at = match frame.get(12..14)? {
            [0x08, 0x00] => [26, 30],
            [0x08, 0x06] => [28, 38],
            _ => return None,
        };
        let address = |at: usize| Some(Ipv4Addr::from(*frame.get(at..)?.first_chunk::<4>()?));
        Some([address(at[0])?, address(at[1])?])
    }

    /// The frames of a file of tcpdump's, the last of which may not be written wholly yet.
    fn frames(file: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut rest = file.get(24..).unwrap_or_default();
        while let Some((head, more)) = rest.split_first_chunk::<16>() {
            let length = u32::from_ne_bytes(*head[8..].first_chunk().unwrap()) as usize;
            let Some((frame, more)) = more.split_at_checked(length) else { break };
            frames.push(frame.to_vec());
            rest = more;
        }
        frames
    }

    struct Node {
        child: Child,
        input: ChildStdin,
        output: Receiver<String>,
        endpoint: String,
    }

    impl Node {
        fn start(lab: &Lab, host: &str, capture: &Path, before: Option<&str>) -> Self {
            let mut command = lab.node(host).command(env!("CARGO_BIN_EXE_kv"));
            command.arg("--listen").arg(format!("tcp://{}:0", lab.node(host).address()));
            command.arg("--capture").arg(capture).args(before);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let input = child.stdin.take().unwrap();
            let (tell, output) = channel();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
            let mut node = Self { child, input, output, endpoint: String::new() };
            node.endpoint = node.line();
            node
        }

        fn say(&mut self, line: &str) {
            writeln!(self.input, "{line}").unwrap();
        }

        fn line(&self) -> String {
            self.output.recv_timeout(PATIENCE).unwrap()
        }

        /// Until the first of the line has heard of all others, as they are in the end.
        fn wait_for_nodes(&mut self) {
            let deadline = Instant::now() + PATIENCE;
            loop {
                self.say("nodes");
                let lines: Vec<String> =
                    std::iter::from_fn(|| Some(self.line()).filter(|line| line != "end of nodes")).collect();
                let told = |words: &str| lines.iter().filter(|line| line.ends_with(words)).count();
                if [told("has 2 neighbours"), told("has 1 neighbours")] == [4, 1] {
                    return;
                }
                assert!(Instant::now() < deadline, "{lines:?}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// Far more than anything takes here, even on a loaded machine.
    const PATIENCE: Duration = Duration::from_secs(60);
}
