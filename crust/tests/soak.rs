//! What dials leave behind that come to nothing, in threads, descriptors and memory. Counted from `/proc`, so Linux.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    net::UdpSocket,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crust::{
    Config, ConnectOptions, Destination, Endpoint, Identity, Lan, NamedEndpoint, PublicKey, Scheme, Service,
};

#[test]
fn dials_that_fail_leave_nothing_behind() {
    fail(400);
}

/// As many as promised; `.ci/figures/50-services` runs it.
#[test]
#[ignore = "takes a minute"]
fn ten_thousand_dials_that_fail_leave_nothing_behind() {
    fail(10_000);
}

/// So many, of each kind a third: where nobody listens by TCP, by QUIC, and of keys that the introducer does not know.
fn fail(dials: usize) {
    let _alone = alone();
    let places = || ["quic://127.0.0.1:0".parse().unwrap()];
    let config = || Config::new().lan(Lan::Off);
    let middle = Service::new_from_config(config().listen(places()).introduce(true)).unwrap();
    let place: NamedEndpoint = middle.controller.endpoints().unwrap()[0].into();
    let client = config().listen([]).introducers([place]).attach(false);
    let client = Service::new_from_config(client).unwrap();
    // Held, so that nobody else gets the port; what comes to it is not answered, and so it is let go before the dials.
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = ConnectOptions::new().deadline(Duration::from_secs(20));
    let dial = |number: usize| {
        let nobody = key(number);
        let to: Destination = match number % 3 {
            0 => Endpoint::new(Scheme::Tcp, closed, nobody).into(),
            1 => Endpoint::new(Scheme::Quic, closed, nobody).into(),
            _ => nobody.into(),
        };
        client.controller.connect_with(to, &options).unwrap_err();
    };
    // The first ones fill pools and tables that are kept.
    (0..300).for_each(dial);
    let before = settled(None);
    (300..300 + dials).for_each(dial);
    let after = settled(Some(before));
    assert_eq!((after.threads, after.descriptors), (before.threads, before.descriptors));
    let grown = after.memory_kib.saturating_sub(before.memory_kib);
    println!("{dials} dials: {grown} KiB more, {} descriptors, {} threads", after.descriptors, after.threads);
    // A leak of one small allocation a dial would be a hundred bytes each, and more; the allocator's own noise is allowed for.
    assert!(grown < (2 << 10) + dials / 20, "{grown} KiB by {dials} dials");
    assert_eq!(client.controller.iter_endpoint_cache().count(), 0);
    assert_eq!(client.controller.stats().streams_open, 0);
}

/// One that nobody has.
fn key(number: usize) -> PublicKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    Identity::from_seed(seed).public_key()
}

#[derive(Debug, Clone, Copy)]
struct Held {
    threads: usize,
    descriptors: usize,
    memory_kib: usize,
}

/// What the process holds, once it has come down to what it held before or had 30 s to: ends take a moment, and what a connection
/// without streams is kept for some seconds.
fn settled(before: Option<Held>) -> Held {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut last = held();
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = held();
        let is_quiet = match before {
            Some(before) => now.threads <= before.threads && now.descriptors <= before.descriptors,
            None => (now.threads, now.descriptors) == (last.threads, last.descriptors),
        };
        if is_quiet || Instant::now() >= deadline {
            return now;
        }
        last = now;
    }
}

fn held() -> Held {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| -> usize {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    Held { threads: field("Threads:"), descriptors, memory_kib: field("RssAnon:") }
}

/// The tests count what belongs to the whole process, so one runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
