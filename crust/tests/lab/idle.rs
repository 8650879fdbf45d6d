//! What a service costs that only waits to be called: packets, threads, memory.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crust::{Config, Lan, NamedEndpoint, Service};

use crate::world::{World, soon};

/// The first argument of the service that this program starts in a process of its own.
pub(crate) const AS_SERVICE: &str = "--as-idle-service";

pub(crate) struct Idle {
    pub(crate) packets_sent: u64,
    pub(crate) packets_received: u64,
    pub(crate) threads: u64,
    pub(crate) memory_kib: u64,
}

/// Attached to one introducer, behind a NAT, for so long.
pub(crate) fn measure(time: Duration) -> Idle {
    let world = World::new("easy", "easy");
    let place = world.places.iter().find(|place| place.to_string().starts_with("quic")).unwrap();
    let node = world.lab.node("a1");
    let mut command = node.command(std::env::current_exe().unwrap());
    let child = command.args([AS_SERVICE, &place.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut service = Process(child);
    let mut line = String::new();
    BufReader::new(service.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "attached");
    // What comes with the attachment is not idleness yet: paths are measured, threads of helpers end.
    thread::sleep(SETTLING);
    let count = || node.enter(packets);
    let before = count();
    let begun = Instant::now();
    thread::sleep(time);
    let after = count();
    assert!(begun.elapsed() < time * 2, "the machine is too busy to measure on");
    let status = fs::read_to_string(format!("/proc/{}/status", service.0.id())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    Idle {
        packets_sent: after.0 - before.0,
        packets_received: after.1 - before.1,
        threads: field("Threads:"),
        // What is its own, without the program's file.
        memory_kib: field("RssAnon:"),
    }
}

/// The child's part: attaches, says so, and waits to be killed.
pub(crate) fn serve(introducer: &str) -> ! {
    let introducer: NamedEndpoint = introducer.parse().unwrap();
    let config = Config::new().lan(Lan::Off).introducers([introducer]);
    let service = Service::new_from_config(config).unwrap();
    assert!(service.controller.wait_attached(soon()));
    println!("attached");
    loop {
        let _ = service.acceptor.accept();
    }
}

/// UDP datagrams and TCP segments of this namespace: sent, received.
fn packets() -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let field = |protocol: &str, name: &str| -> u64 {
        let mut lines = text.lines().filter(|line| line.starts_with(&format!("{protocol}: ")));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split_whitespace().position(|word| word == name).unwrap();
        values.split_whitespace().nth(at).unwrap().parse().unwrap()
    };
    (
        field("Udp", "OutDatagrams") + field("Tcp", "OutSegs"),
        field("Udp", "InDatagrams") + field("Tcp", "InSegs"),
    )
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SETTLING: Duration = Duration::from_secs(10);
