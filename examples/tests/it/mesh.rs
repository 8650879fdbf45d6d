use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use crust_examples::mesh::Report;

use crate::support::Program;

const MESH: &str = env!("CARGO_BIN_EXE_mesh");

#[test]
fn nothing_is_lost_and_the_stack_counts_what_the_nodes_claim() {
    for threading in ["two-threads", "one-thread"] {
        let mut group = Group::start(4, threading, 2);
        for report in group.reports() {
            assert!(report.sent >= 3 * 300 && report.received >= 3 * 300, "{report:?}");
            assert_eq!((report.lost, report.reordered, report.refused), (0, 0, 0), "{report:?}");
            assert_eq!((report.hellos, report.acks), ((3, 3), (3, 3)), "{report:?}");
            let [written, read, stack_sent, stack_received] = report.traffic;
            assert_eq!((written, read), (stack_sent, stack_received), "{report:?}");
            assert!(report.downs.is_empty() && report.full_after < 10_000, "{report:?}");
        }
    }
}

#[test]
fn a_stopped_node_delays_nobody_and_is_found_out() {
    for threading in ["two-threads", "one-thread"] {
        let mut group = Group::start(4, threading, 6);
        thread::sleep(Duration::from_secs(2)); // while they work, whenever they began
        group.signal(3, "-STOP");
        let reports = group.reports_of(3);
        for report in reports {
            assert_eq!((report.lost, report.reordered), (0, 0), "{report:?}");
            let [(reason, after)] = &report.downs[..] else { panic!("{report:?}") };
            assert_eq!(reason, "it was silent for too long");
            // Three seconds after its last message; the rest is for a busy machine.
            assert!((2_500..5_000).contains(after), "{report:?}");
            assert!(report.p99 < 500_000, "{report:?}");
        }
    }
}

#[test]
fn a_killed_node_is_missed_at_once() {
    let mut group = Group::start(3, "one-thread", 3);
    thread::sleep(Duration::from_secs(2));
    group.signal(2, "-KILL");
    for report in group.reports_of(2) {
        let [(reason, after)] = &report.downs[..] else { panic!("{report:?}") };
        assert_eq!(reason, "its stream has ended");
        assert!(*after < 1_500, "{report:?}");
    }
}

#[test]
fn a_wrong_word_is_told() {
    let mut output = Command::new(MESH).args(["node", "three-threads", "x"]).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap().trim(), "a number of seconds is wanted, not \"x\"");
    output = Command::new(MESH).arg("dance").output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap().trim(), "usage: mesh [--seconds N]");
}

/// The table of the README: `cargo test --release -p crust-examples --test it -- --ignored --nocapture mesh`.
#[test]
#[ignore = "means something on an idle machine only"]
fn mesh_figures() {
    for line in Program::start(MESH, &["--seconds", "20"]).end() {
        println!("{line}");
    }
    for stopped in [false, true] {
        let mut group = Group::start(8, "one-thread", 20);
        thread::sleep(Duration::from_secs(5));
        if stopped {
            group.signal(7, "-STOP");
        }
        let reports = group.reports_of(7);
        let worst = reports.iter().map(|report| report.p99).max().unwrap();
        println!("8 nodes, one of them stopped: {stopped:5}  worst p99 {:.1} ms", f64::from(worst) / 1e3);
        assert!(reports.iter().all(|report| (report.lost, report.reordered) == (0, 0)), "{reports:?}");
        assert!(worst <= 20_000, "{worst}");
    }
}

/// Processes that form a group. They do not outlive the test.
struct Group(Vec<Member>);

struct Member {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Group {
    fn start(nodes: usize, threading: &str, seconds: u32) -> Self {
        let mut members: Vec<Member> = (0..nodes)
            .map(|_| {
                let mut command = Command::new(MESH);
                command.args(["node", threading, &seconds.to_string()]);
                let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
                let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
                Member { child, input, output: BufReader::new(output) }
            })
            .collect();
        let all: Vec<String> = members.iter_mut().map(Member::line).collect();
        for member in &mut members {
            writeln!(member.input, "{}", all.join(" ")).unwrap();
        }
        Self(members)
    }

    fn signal(&self, member: usize, signal: &str) {
        let process = self.0[member].child.id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    fn reports(&mut self) -> Vec<Report> {
        self.reports_of(self.0.len())
    }

    /// Of the first ones; they end by themselves, whatever becomes of the others.
    fn reports_of(&mut self, members: usize) -> Vec<Report> {
        self.0[..members].iter_mut().map(|member| serde_json::from_str(&member.line()).unwrap()).collect()
    }
}

impl Member {
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it has ended");
        line.trim().to_owned()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
