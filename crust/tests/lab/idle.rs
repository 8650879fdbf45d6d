//! What a service costs that only waits to be called: packets, threads, memory.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crust::{Config, Lan, NamedEndpoint, Scheme, Service};
use nat_lab::{Link, Nat, Site, Topology};

use crate::world::{World, soon};

/// The first argument of the service that this program starts in a process of its own.
pub(crate) const AS_SERVICE: &str = "--as-idle-service";

pub(crate) struct Idle {
    /// Packets sent and received: at first, and once it knows how long its NAT bears silence.
    pub(crate) packets: [(u64, u64); 2],
    pub(crate) threads: u64,
    pub(crate) memory_kib: u64,
}

/// Attached to one introducer by that scheme, behind a NAT that remembers flows of UDP so long; packets are counted twice for so long.
pub(crate) fn measure(scheme: Scheme, lifetime: Duration, time: Duration) -> Idle {
    let nat = Nat { lifetime, ..Nat::easy() };
    let link = Link::delay(Duration::from_millis(20));
    let world = World::of(&Topology::new().site(Site::new([nat])).links(link));
    let place = world.places.iter().find(|place| place.scheme() == scheme).unwrap();
    let node = world.lab.node("a1");
    let mut command = node.command(std::env::current_exe().unwrap());
    let child = command.args([AS_SERVICE, &place.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut service = Process(child);
    let mut line = String::new();
    BufReader::new(service.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "attached");
    // What comes with the attachment is not idleness yet: paths are measured, threads of helpers end.
    let attached = Instant::now();
    let packets = [SETTLING, LEARNING].map(|begin| {
        thread::sleep(begin.saturating_sub(attached.elapsed()));
        let before = node.enter(packets);
        let begun = Instant::now();
        thread::sleep(time);
        let after = node.enter(packets);
        assert!(begun.elapsed() < time * 2, "the machine is too busy to measure on");
        (after.0 - before.0, after.1 - before.1)
    });
    let status = fs::read_to_string(format!("/proc/{}/status", service.0.id())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    Idle {
        packets,
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
/// Twice each silence that it tries.
const LEARNING: Duration = Duration::from_secs(180);
