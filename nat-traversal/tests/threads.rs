//! Whatever a program uses of this library, one thread serves it, and ends with the last user. In a process of its own, since it
//! counts those of the whole process.
#![cfg(all(target_os = "linux", feature = "turn"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nat_traversal::protocol::turn::{RelayRules, RelaySecret, TargetPolicy};
use nat_traversal::{
    HolePunchServer, MappedUdpSocket, MappingConfig, MappingContext, RelayHost, RelayedUdpSocket, TurnServer,
};

#[path = "it/home_router.rs"]
#[allow(dead_code, reason = "shared with another test, which uses all of it")]
mod home_router;

use home_router::{HomeRouter, Upnp};

#[test]
fn servers_relays_and_leases_of_all_contexts_share_one_thread() {
    let servers: Vec<HolePunchServer> =
        (0..3).map(|_| HolePunchServer::bind("127.0.0.1:0".parse().unwrap()).unwrap()).collect();
    let secret = RelaySecret::new([7; 32]);
    let loopback = TargetPolicy::strict().allow(["127.0.0.0/8".parse().unwrap()]);
    let rules = RelayRules::new("127.0.0.1".parse().unwrap()).targets(loopback);
    let hosts: Vec<RelayHost> = (0..2)
        .map(|_| RelayHost::bind("127.0.0.1:0".parse().unwrap(), secret.clone(), rules.clone()).unwrap())
        .collect();
    let until = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3_600;
    let routers = ["127.10.4.1", "127.10.4.2"].map(|at| HomeRouter::start(at, Upnp::Off, |_| {}));
    let users: Vec<_> = routers
        .iter()
        .zip(&hosts)
        .map(|(router, host)| {
            let config = MappingConfig::new().router(router.address).map_timeout(PATIENCE);
            let config = config.server(servers[0].addresses()[0].addr);
            let context = MappingContext::new(config).unwrap();
            let mapped = MappedUdpSocket::map(UdpSocket::bind("127.0.0.1:0").unwrap(), &context).unwrap();
            assert!(mapped.lease.is_some() && mapped.endpoints.len() > 1, "{:?}", mapped.failures);
            let server: TurnServer = format!("turn:{}", host.addr()).parse().unwrap();
            let server = server.with(&secret.credentials(until, "someone"));
            let relayed = RelayedUdpSocket::allocate(&context, &server, Instant::now() + PATIENCE).unwrap();
            (context, mapped, relayed)
        })
        .collect();
    // Three servers, two relays and their clients, two leases.
    wait_for(&["nat-io"]);
    // The servers go first, and what they served learns it or not: nothing of it has a thread of its own.
    drop(servers);
    drop(hosts);
    wait_for(&["nat-io"]);
    drop(users);
    wait_for(&[]);
    let again = HolePunchServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    wait_for(&["nat-io"]);
    drop(again);
    wait_for(&[]);
}

/// Waits until these are the threads. A thread has its name, and is gone from the list, a moment after it has begun or ended.
fn wait_for(names: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while ours() != names {
        assert!(Instant::now() < deadline, "there are {:?}, not {names:?}", ours());
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// The names of this library's threads.
fn ours() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("nat-")).collect()
}

/// Far beyond what this takes.
const PATIENCE: Duration = Duration::from_secs(30);
