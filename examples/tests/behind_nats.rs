//! The commands of the README's section on `hole_punch`, run on hosts behind kernel NATs. Linux, root, and what nat-lab
//! needs; elsewhere it prints `NOT RUN: …` and ends well, and the gate does not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("NOT RUN: hole_punch behind NATs: network namespaces are Linux's");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
    use std::time::Duration;
    use std::{panic, thread};

    use nat_lab::{Lab, Link, Topology};

    const README: &str = include_str!("../README.md");

    /// Two sites, whether over TCP, and how the line with the outcome begins.
    const CASES: [(&str, &str, bool, &str); 5] = [
        ("easy", "easy", false, "punched "),
        ("easy", "easy", true, "punched "),
        ("easyrand", "cgnat", false, "punched "),
        ("easyrand", "cgnat", true, "punched "),
        ("hard", "hard", false, "not punched: no direct connection is possible: both NATs change ports"),
    ];

    pub(crate) fn main() -> ExitCode {
        if let Err(reason) = Lab::check() {
            println!("NOT RUN: hole_punch behind NATs: {reason}");
            return ExitCode::SUCCESS;
        }
        let failed = thread::scope(|scope| {
            let cases = CASES.map(|case| scope.spawn(move || run(case)));
            let ends = CASES.iter().zip(cases.map(thread::ScopedJoinHandle::join));
            let mut failed = 0;
            for ((a, b, tcp, _), end) in ends {
                let outcome = if end.is_ok() { "ok" } else { "FAILED" };
                println!("test {a}:{b} over {} ... {outcome}", if *tcp { "TCP" } else { "UDP" });
                failed += usize::from(end.is_err());
            }
            failed
        });
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        println!("test result: {verdict}. {} passed; {failed} failed; 0 ignored", CASES.len() - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn run((a, b, tcp, expected): (&str, &str, bool, &str)) {
        let link = Link::delay(Duration::from_millis(20));
        let lab = Topology::pair(a, b).unwrap().links(link).build().unwrap();
        let mut server = Program::start(&lab, "server", &command("--server"));
        assert!(server.line().starts_with("serving at "));
        let peer = command(if tcp { "--tcp" } else { "--stun" });
        let mut peers = ["a1", "b1"].map(|host| Program::start(&lab, host, &peer));
        let lines = peers.each_mut().map(Program::line);
        for (peer, line) in peers.iter_mut().zip(lines.iter().rev()) {
            assert!(line.len() <= 1_000, "{line}");
            writeln!(peer.input, "{line}").unwrap();
        }
        for mut peer in peers {
            let outcome = peer.line();
            assert!(outcome.starts_with(expected), "{a}:{b}: {outcome}");
            let punched = expected.starts_with("punched");
            let mut received: Vec<String> = (0..if punched { 10 } else { 0 }).map(|_| peer.line()).collect();
            received.sort_by_key(|line| line.split(' ').nth(2).unwrap().parse::<u32>().unwrap());
            for (number, line) in (1..).zip(&received) {
                assert_eq!(*line, format!("received message {number} of 10"), "{a}:{b}");
            }
            assert_eq!(peer.child.wait().unwrap().success(), punched, "{a}:{b}");
        }
    }

    /// The arguments of the README's command that begins with this one, as they stand there.
    fn command(first: &str) -> Vec<String> {
        let start = format!("$ cargo run -p crust-examples --bin hole_punch -- {first} ");
        let line = README.lines().find(|line| line.starts_with(&start)).expect("the README has it");
        let (_, arguments) = line.split_once(" -- ").unwrap();
        let words = arguments.split('#').next().unwrap().split_whitespace();
        words.map(str::to_owned).collect()
    }

    struct Program {
        child: Child,
        input: ChildStdin,
        output: BufReader<ChildStdout>,
    }

    impl Program {
        fn start(lab: &Lab, host: &str, arguments: &[String]) -> Self {
            let mut command = lab.node(host).command(env!("CARGO_BIN_EXE_hole_punch"));
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let input = child.stdin.take().unwrap();
            let output = BufReader::new(child.stdout.take().unwrap());
            Self { child, input, output }
        }

        /// The next line that it prints. It ends by itself, so there is one or an end of the output.
        fn line(&mut self) -> String {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            if line.is_empty() {
                panic::resume_unwind(Box::new("it printed nothing more"));
            }
            line.trim_end().to_owned()
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
