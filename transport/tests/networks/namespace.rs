//! Two hosts on one wire: two namespaces and a pair of virtual interfaces, gone on drop.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// The first argument of a peer that this program starts.
pub(crate) const PEER: &str = "--as-peer";

/// Why namespaces cannot be made here, if so.
pub(crate) fn check() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Err("network namespaces are Linux's".into());
    }
    let probe = format!("crust-probe-{}", std::process::id());
    run("ip", &["netns", "add", &probe])?;
    let nft = run("ip", &["netns", "exec", &probe, "nft", "list", "ruleset"]);
    run("ip", &["netns", "delete", &probe])?;
    nft
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} {}: {}", arguments.join(" "), text.trim()))
        }
        Err(error) => Err(format!("{program}: {error}")),
    }
}

pub(crate) struct Network {
    names: [String; 2],
}

impl Network {
    pub(crate) fn new(what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("crust-{what}-{}-{number}{side}", std::process::id());
        let network = Self { names: [name("a"), name("b")] };
        let [a, b] = &network.names;
        let all = [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("-n {a} link add eth0 type veth peer name eth0 netns {b}"),
        ];
        all.iter().for_each(|line| ip(line));
        for (side, name) in network.names.iter().enumerate() {
            ip(&format!("-n {name} addr add {}/24 dev eth0", network.address(side)));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set eth0 up"));
        }
        network
    }

    pub(crate) fn address(&self, side: usize) -> &'static str {
        ["10.71.0.1", "10.71.0.2"][side]
    }

    /// Has a host ask that server for names, by the file that `ip netns exec` shows it as its own.
    pub(crate) fn set_name_server(&self, side: usize, server: &str) {
        let folder = self.own_files(side);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("resolv.conf"), format!("nameserver {server}\n")).unwrap();
    }

    fn own_files(&self, side: usize) -> PathBuf {
        Path::new("/etc/netns").join(&self.names[side])
    }

    /// Loses so many of a hundred packets from now on, each way.
    pub(crate) fn lose(&self, percent: u32) {
        self.drop_those(&format!("numgen random mod 100 < {percent}"));
    }

    /// Lets nothing pass from now on.
    pub(crate) fn cut(&self) {
        self.drop_those("");
    }

    /// Lets everything pass again.
    pub(crate) fn mend(&self) {
        for name in &self.names {
            run("ip", &["netns", "exec", name, "nft", "delete", "table", "ip", "loss"]).unwrap();
        }
    }

    /// Takes a host's address away and gives it another one. In that order: with the first address of a network the others go.
    pub(crate) fn change_address(&self, side: usize) {
        let name = &self.names[side];
        ip(&format!("-n {name} addr del {}/24 dev eth0", self.address(side)));
        ip(&format!("-n {name} addr add 10.71.0.{}/24 dev eth0", 100 + side));
    }

    fn drop_those(&self, which: &str) {
        let rules = format!(
            "table ip loss {{\nchain in {{\ntype filter hook input priority 0;\n\
             iifname eth0 {which} drop;\n}}\n}}\n"
        );
        for name in &self.names {
            let mut nft = Command::new("ip")
                .args(["netns", "exec", name, "nft", "-f", "-"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
            assert!(nft.wait().unwrap().success(), "{rules}");
        }
    }

    /// Starts this program as a peer on one of the hosts.
    pub(crate) fn start(&self, side: usize, arguments: &[&str]) -> Peer {
        let myself = std::env::current_exe().unwrap();
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.names[side]])
            .arg(myself)
            .arg(PEER)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Peer { child, lines }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (side, name) in self.names.iter().enumerate() {
            if let Err(error) = run("ip", &["netns", "delete", name]) {
                eprintln!("{error}");
            }
            // Mostly there are none.
            let _ = fs::remove_dir_all(self.own_files(side));
        }
    }
}

fn ip(line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    if let Err(error) = run("ip", &words) {
        panic!("{error}");
    }
}

/// One process on a host, ended on drop.
pub(crate) struct Peer {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Peer {
    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        self.lines.recv_timeout(Duration::from_secs(60)).expect("the peer prints a line within a minute")
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn finish(&mut self) {
        assert!(self.child.wait().unwrap().success());
    }

    /// Has the process stand still, or go on.
    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(output: ChildStdout) -> mpsc::Receiver<String> {
    let (give, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if give.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
