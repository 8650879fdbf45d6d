//! Services on a local network, which is two network namespaces that can reach nothing else: by beacons, and with the real avahi,
//! which tells and hears of services by multicast DNS. Needs root on Linux; elsewhere it says that it did not run.
#![cfg(target_os = "linux")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::RecvTimeoutError;
#[cfg(feature = "mdns")]
use crust::Identity;
use crust::{Config, PublicKey, Service};

#[test]
fn services_on_two_machines_find_each_other_with_nothing_configured() {
    let Some(lab) = Lab::new("services on two machines") else { return };
    let mut agents = ["one", "two"].map(|host| lab.program(host, &agent_words("beacon"), false));
    let keys = agents.each_mut().map(|agent| agent.line().trim_start_matches("agent: key ").to_owned());

    let [one, two] = &mut agents;
    for (agent, key, address) in [(one, &keys[1], "10.77.0.2"), (two, &keys[0], "10.77.0.1")] {
        for _ in 0..2 {
            let found = agent.line_with("found");
            assert!(found.contains(&format!("://{address}:")) && found.ends_with(key.as_str()), "{found}");
        }
    }
    let [one, two] = agents;
    drop(one);
    let mut two = two;
    two.line_with(&format!("gone {}", keys[0]));
}

#[cfg(feature = "mdns")]
#[test]
fn avahi_finds_a_service_and_a_service_finds_what_avahi_publishes() {
    let what = "multicast DNS with avahi";
    let Some(lab) = Lab::new(what) else { return };
    let Some(_daemons) = Avahi::start(&lab, what) else { return };
    let mut service = lab.program("one", &agent_words("mdns"), false);
    let key = service.line().trim_start_matches("agent: key ").to_owned();

    // avahi sees the service, with its key and ports, at its address.
    let seen = until(|| {
        let found =
            lab.run("two", &["avahi-browse", "--resolve", "--parsable", "--terminate", "_crust._udp"]);
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        let line = found.lines().find(|line| line.starts_with("=;") && line.contains(&key));
        line.filter(|line| line.contains(";10.77.0.1;")).map(str::to_owned)
    });
    assert!(seen.contains("\"quic=") && seen.contains("\"tcp=") && seen.contains("\"v=1\""), "{seen}");

    // The service hears what avahi publishes, and that it is gone.
    let other = Identity::from_seed([7; 32]).public_key();
    let key_property = format!("key={other}");
    let words = ["avahi-publish", "-s", "printer", "_crust._udp", "4433", "v=1", &key_property, "quic=4433"];
    let published = lab.program("two", &words, true);
    assert_eq!(service.line_with("found"), format!("agent: found quic://10.77.0.2:4433?pubkey={other}"));
    drop(published);
    service.line_with(&format!("gone {other}"));

    // A service that ends says goodbye.
    drop(service);
    until(|| {
        let found = lab.run("two", &["avahi-browse", "--parsable", "--terminate", "_crust._udp"]);
        (!String::from_utf8_lossy(&found.stdout).contains(&key[..16])).then_some(())
    });
}

/// The service's end: not a test, but a program that the test starts in a namespace.
#[test]
#[ignore = "started by another test as a process of its own"]
fn service_agent() {
    let Ok(way) = std::env::var("LAN_AGENT") else { return };
    let mut service = Service::new_from_config(config(&way)).unwrap();
    service.beacon_state.set_enabled(true).unwrap();
    say(&format!("key {}", service.controller.public_key()));
    let Service { beacon_receiver, controller, .. } = service;
    thread::scope(|scope| {
        let heard = beacon_receiver.receiver().unwrap().clone();
        let controller = &controller;
        scope.spawn(move || {
            let mut known = Vec::new();
            loop {
                match heard.recv_timeout(Duration::from_millis(20)) {
                    Ok(endpoint) => {
                        say(&format!("found {endpoint}"));
                        known.push(endpoint.public_key());
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        let there = controller.lan_peers();
                        let is_gone = |key: &PublicKey| there.iter().all(|(peer, _)| peer != key);
                        known.extract_if(.., |key| is_gone(key)).for_each(|key| say(&format!("gone {key}")));
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        });
        // The test ends it by its standard input.
        let _ = std::io::stdin().read_line(&mut String::new());
        controller.close();
    });
}

#[cfg(feature = "mdns")]
fn config(way: &str) -> Config {
    Config::new().mdns(way == "mdns")
}

#[cfg(not(feature = "mdns"))]
fn config(_way: &str) -> Config {
    Config::new()
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    // Nobody listens any more when the test has ended.
    let _ = writeln!(output, "agent: {line}").and_then(|()| output.flush());
}

fn agent_words(way: &str) -> [String; 6] {
    let binary = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let way = format!("LAN_AGENT={way}");
    ["env", &way, &binary, "local_network::service_agent", "--ignored", "--nocapture"].map(str::to_owned)
}

/// Two namespaces, one and two, joined by a cable: 10.77.0.1 and 10.77.0.2.
struct Lab {
    prefix: String,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(what: &str) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let lab = Self {
            prefix: format!("lan-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)),
            folder: tempfile::tempdir().unwrap(),
        };
        let [one, two] = ["one", "two"].map(|name| lab.namespace(name));
        let script = format!(
            "ip netns add {one} && ip netns add {two} && \
             ip -n {one} link set lo up && ip -n {two} link set lo up && \
             ip -n {one} link add eth0 type veth peer name eth0 netns {two} && \
             ip -n {one} addr add 10.77.0.1/24 brd + dev eth0 && ip -n {two} addr add 10.77.0.2/24 brd + dev eth0 && \
             ip -n {one} link set eth0 up && ip -n {two} link set eth0 up"
        );
        let made = Command::new("sh").args(["-c", &script]).output();
        match made {
            Ok(output) if output.status.success() => Some(lab),
            Ok(output) => not_run(what, String::from_utf8_lossy(&output.stderr).trim()),
            Err(error) => not_run(what, &error.to_string()),
        }
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn command(&self, host: &str, words: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]).args(words.iter().map(AsRef::as_ref));
        command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.bus().display()));
        command
    }

    #[cfg(feature = "mdns")]
    fn run(&self, host: &str, words: &[&str]) -> std::process::Output {
        self.command(host, words).output().unwrap()
    }

    fn program(&self, host: &str, words: &[impl AsRef<str>], takes_signal: bool) -> Program {
        Program::start(&mut self.command(host, words), takes_signal)
    }

    fn bus(&self) -> std::path::PathBuf {
        self.folder.path().join("bus")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in ["one", "two"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(name)]).output();
        }
    }
}

#[cfg(feature = "mdns")]
/// avahi-daemon in namespace two, and the bus by which its tools speak to it.
struct Avahi {
    _bus: Program,
    _daemon: Program,
}

#[cfg(feature = "mdns")]
impl Avahi {
    fn start(lab: &Lab, what: &str) -> Option<Self> {
        for tool in ["/usr/sbin/avahi-daemon", "/usr/bin/avahi-browse", "/usr/bin/dbus-daemon"] {
            if !std::path::Path::new(tool).exists() {
                return not_run(what, &format!("{tool} is not installed"));
            }
        }
        let file = |name: &str, content: &str| {
            let path = lab.folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let policy = "<policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
                      <allow own=\"*\"/><allow user=\"*\"/></policy>";
        let bus = lab.bus();
        let bus_config = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
             <busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>{policy}</busconfig>",
            bus.display()
        );
        let bus_config = file("bus.conf", &bus_config);
        let bus_option = format!("--config-file={bus_config}");
        let bus_daemon = lab.program("two", &["dbus-daemon", "--nofork", &bus_option], true);
        until(|| bus.exists().then_some(()));
        let config = "[server]\nhost-name=two\nuse-ipv4=yes\nuse-ipv6=no\nallow-interfaces=eth0\nenable-dbus=yes\n\
                      [wide-area]\nenable-wide-area=no\n[publish]\ndisable-publishing=no\n[reflector]\n[rlimits]\n";
        let config = file("avahi.conf", config);
        // Its process id goes to /run, of which it gets one of its own.
        let script = format!(
            "mount -t tmpfs tmpfs /run && mkdir /run/avahi-daemon && \
             exec avahi-daemon --no-drop-root --no-chroot --no-rlimits --file {config}"
        );
        let daemon = lab.program("two", &["unshare", "--mount", "sh", "-c", &script], true);
        until(|| {
            let asked = lab.run("two", &["avahi-browse", "--terminate", "_crust._udp"]);
            asked.status.success().then_some(())
        });
        Some(Self { _bus: bus_daemon, _daemon: daemon })
    }
}

/// A program under way, which does not outlive its handle.
struct Program {
    child: Child,
    lines: Receiver<String>,
    /// Told by a signal to end, else by the end of its input.
    takes_signal: bool,
}

impl Program {
    fn start(command: &mut Command, takes_signal: bool) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tools were there before");
        let output = child.stdout.take().unwrap();
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The test harness talks on the same stream.
                let at = line.find("agent: ");
                let _ = at.map(|at| tell.send(line[at..].to_owned()));
            }
        });
        Self { child, lines, takes_signal }
    }

    fn line(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }

    fn line_with(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let line = self.line();
            if line.contains(part) {
                return line;
            }
        }
        panic!("it never says {part}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if self.takes_signal {
            let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).output();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(feature = "mdns")]
/// Tries until there is something.
fn until<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "it does not come about");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Says that something could not be tried here, in a way that the test harness does not swallow.
fn not_run<T>(what: &str, reason: &str) -> Option<T> {
    let line = format!("NOT RUN: {what}: {}\n", reason.replace('\n', "; "));
    let _ = std::io::stdout().write_all(line.as_bytes());
    None
}

/// Probing and announcing take two seconds; this is far more than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
