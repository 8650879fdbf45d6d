use std::{
    io::Write as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crust_examples::mesh::Processes;

use crate::judge::{Judge, down, now, since};

/// Packets are dropped from one moment on, without a word to anybody, while nodes have nothing to say but that they live.
pub(crate) fn found_out(judge: &mut Judge) {
    let network = match Namespace::new(judge.threads(2)) {
        Ok(network) => network,
        Err(reason) => return println!("NOT RUN: mesh in a black hole: {reason}"),
    };
    let nodes = 3;
    let commands = (0..nodes).map(|number| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &network.0, env!("CARGO_BIN_EXE_mesh")]);
        command.args(judge.arguments(&format!("n{number}")));
        command
    });
    let mut group = Processes::start(commands.collect::<Vec<_>>()).unwrap();
    thread::sleep(Duration::from_secs(1)); // what was in flight has come
    let begin = now();
    network.cut();
    let mut times = Vec::new();
    let mut reasons = Vec::new();
    for (place, node) in group.nodes.iter_mut().enumerate() {
        for peer in (0..nodes).filter(|peer| *peer != place) {
            let (at, reason) = down(node, &format!("n{peer}"));
            times.push(since(begin, at));
            reasons.push(reason);
        }
    }
    let silent = reasons.iter().all(|reason| reason == "it was silent for too long");
    judge.fact("all are found silent in a black hole", &silent.to_string(), "true", silent);
    let (timeout, margin) = (judge.scale.timeout, Duration::from_secs(1));
    judge.within("in a black hole, declared dead after", &times, timeout - margin, timeout + margin);
    group.end().unwrap();
}

/// A network namespace with nothing in it but loopback; gone on drop.
struct Namespace(String);

impl Namespace {
    fn new(number: usize) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("network namespaces are Linux's".to_owned());
        }
        let name = format!("crust-mesh-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name])?;
        let namespace = Self(name);
        run("ip", &["-n", &namespace.0, "link", "set", "lo", "up"])?;
        run("ip", &["netns", "exec", &namespace.0, "nft", "list", "ruleset"])?;
        Ok(namespace)
    }

    fn cut(&self) {
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &self.0, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let rules = "table ip hole {\nchain in {\ntype filter hook input priority 0;\ndrop;\n}\n}\n";
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["netns", "delete", &self.0]) {
            eprintln!("{error}");
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
