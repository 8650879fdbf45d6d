//! Machines in network namespaces of our own, joined by bridges. Nothing in them can reach any other network.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::agent::{Agent, Settings};

/// Namespaces that end with the test.
pub(crate) struct Lab {
    prefix: String,
    namespaces: Vec<String>,
}

impl Lab {
    /// An empty lab with a switch; `None`, with a line that says why, where namespaces cannot be made.
    pub(crate) fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        remove_leftovers();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut lab = Self { prefix: format!("bcn-{}-{number}", std::process::id()), namespaces: Vec::new() };
        match lab.add_namespace("switch") {
            Ok(()) => Some(lab),
            Err(reason) => {
                not_run(test, &reason);
                None
            }
        }
    }

    /// Adds a machine without a network.
    pub(crate) fn add_host(&mut self, host: &str) {
        self.add_namespace(host).expect("the switch could be added too");
    }

    /// Adds a bridge to the switch.
    pub(crate) fn add_bridge(&self, bridge: &str) {
        self.ip("switch", &format!("link add {bridge} type bridge mcast_snooping 0"));
        self.ip("switch", &format!("link set {bridge} up"));
    }

    /// Plugs a machine into a bridge by a new interface, and gives that its addresses.
    pub(crate) fn plug(&self, host: &str, interface: &str, bridge: &str, addresses: &[&str]) {
        let far = format!("{host}-{interface}");
        let switch = self.namespace("switch");
        self.ip(host, &format!("link add {interface} type veth peer name {far} netns {switch}"));
        self.ip(host, &format!("link set {interface} addrgenmode none"));
        self.ip("switch", &format!("link set {far} addrgenmode none"));
        self.ip("switch", &format!("link set {far} master {bridge} up"));
        self.ip(host, &format!("link set {interface} up"));
        for address in addresses {
            self.add_address(host, interface, address);
        }
    }

    pub(crate) fn add_address(&self, host: &str, interface: &str, address: &str) {
        // Without the check for duplicates, which takes a second or two, an IPv6 address is of use at once.
        let (family, check) = if address.contains(':') { ("-6", " nodad") } else { ("-4", " brd +") };
        self.ip(host, &format!("{family} addr add {address}{check} dev {interface}"));
    }

    /// Runs `ip` inside a machine.
    pub(crate) fn ip(&self, host: &str, arguments: &str) {
        let namespace = self.namespace(host);
        let words = arguments.split(' ');
        let output =
            Command::new("ip").arg("-n").arg(&namespace).args(words).output().expect("ip was there before");
        assert!(output.status.success(), "ip {arguments} on {host}: {}", complaint(&output));
    }

    /// Runs a command inside a machine; what it complains of if it fails.
    pub(crate) fn run(&self, host: &str, command: &[&str]) -> Result<(), String> {
        let namespace = self.namespace(host);
        let output = Command::new("ip").args(["netns", "exec", &namespace]).args(command).output();
        succeeded(output)
    }

    /// Starts a beacon inside a machine.
    pub(crate) fn start(&self, host: &str, settings: &Settings) -> Agent {
        Agent::start(&["ip", "netns", "exec", &self.namespace(host)], settings)
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn add_namespace(&mut self, host: &str) -> Result<(), String> {
        let namespace = self.namespace(host);
        succeeded(Command::new("ip").args(["netns", "add", &namespace]).output())?;
        self.namespaces.push(namespace.clone());
        succeeded(Command::new("ip").args(["-n", &namespace, "link", "set", "lo", "up"]).output())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).output();
        }
    }
}

/// Says that something could not be tried here, in a way that the test harness does not swallow.
pub(crate) fn not_run(what: &str, reason: &str) {
    let mut line = String::new();
    let _ = writeln!(line, "NOT RUN: {what}: {reason}");
    let _ = std::io::stdout().write_all(line.as_bytes());
}

/// Removes the namespaces of test processes that were killed.
fn remove_leftovers() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("bcn-").and_then(|rest| rest.split('-').next());
        let is_dead = |process: &str| !std::path::Path::new("/proc").join(process).exists();
        if process.is_some_and(is_dead) {
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}

fn succeeded(output: std::io::Result<Output>) -> Result<(), String> {
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(complaint(&output)),
        Err(error) => Err(error.to_string()),
    }
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")
}
