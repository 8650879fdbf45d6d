//! Nothing is left of asking routers, in whatever state it ends: no thread, no socket, no forwarded port. In a process of
//! its own, since it counts those of the whole process.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use nat_traversal::{MapError, MappedUdpSocket, MappingConfig, MappingContext};

#[path = "it/home_router.rs"]
#[allow(dead_code, reason = "shared with another test, which uses all of it")]
mod home_router;

use home_router::{HomeRouter, Upnp};

#[test]
fn nothing_is_left_of_a_lease_or_of_a_question() {
    let before = left();
    // A lease by each protocol, dropped; with its context, and after it.
    for (address, upnp) in [("127.10.1.1", Upnp::Off), ("127.10.1.2", Upnp::Works(1))] {
        let router = HomeRouter::start(address, upnp, |router| router.is_silent = upnp != Upnp::Off);
        let context = context(&router, PATIENCE);
        let mapped = MappedUdpSocket::map(udp(), &context).unwrap();
        assert!(mapped.lease.is_some(), "{:?}", mapped.failures);
        assert!(left().0.contains(&"nat-io".to_owned()));
        drop(context);
        drop(mapped);
        router.wait_until_clean();
        drop(router);
        wait_until(&before);
    }
    // A question whose deadline passes, and one that is interrupted, while the router keeps its answer back.
    for (address, interrupts) in [("127.10.2.1", false), ("127.10.2.2", true)] {
        let router = HomeRouter::start(address, Upnp::Hesitates, |router| router.is_silent = true);
        let context = context(&router, if interrupts { PATIENCE } else { Duration::from_millis(1_500) });
        thread::scope(|scope| {
            let waiting = scope.spawn(|| MappedUdpSocket::map(udp(), &context));
            if interrupts {
                thread::park_timeout(Duration::from_millis(1_500));
                context.interrupter().interrupt();
                assert!(matches!(waiting.join().unwrap(), Err(MapError::Interrupted)));
            } else {
                assert!(waiting.join().unwrap().unwrap().lease.is_none());
            }
        });
        drop(context);
        router.answer();
        router.wait_until_clean();
        drop(router);
        wait_until(&before);
    }
    // A router that does not answer at all.
    let router = HomeRouter::start("127.10.3.1", Upnp::Off, |router| router.is_silent = true);
    let mapped = MappedUdpSocket::map(udp(), &context(&router, Duration::from_millis(100))).unwrap();
    assert_eq!(mapped.failures.len(), 1);
    drop((mapped, router));
    wait_until(&before);
}

/// The names of this library's threads, and how many descriptors are open.
fn left() -> (Vec<String>, usize) {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    let ours = names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("nat-"));
    (ours.collect(), fs::read_dir("/proc/self/fd").unwrap().count())
}

fn wait_until(before: &(Vec<String>, usize)) {
    let deadline = Instant::now() + PATIENCE;
    while left() != *before {
        assert!(Instant::now() < deadline, "left: {:?}, before: {before:?}", left());
        thread::park_timeout(Duration::from_millis(20));
    }
}

fn context(router: &HomeRouter, patience: Duration) -> MappingContext {
    MappingContext::new(MappingConfig::new().router(router.address).map_timeout(patience)).unwrap()
}

fn udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// A search for routers that is under way ends after a second and a half, an HTTP request after ten.
const PATIENCE: Duration = Duration::from_secs(30);
