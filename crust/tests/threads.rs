//! The threads of a service that waits to be called. A program of its own, since those of other tests would be counted as well.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use crust::{Config, Driver, Service};

#[test]
fn a_service_that_only_listens_has_one_thread_and_none_where_the_callers_drive() {
    let before = threads();
    let further = || -> Vec<_> { threads().difference(&before).filter_map(|id| name(id)).collect() };
    let service = Service::new_from_config(Config::new().port_map(false)).unwrap();
    assert_becomes(&further, &["transport-io"]);
    drop(service);
    assert_becomes(&further, &[]);

    let service = Service::new_from_config(Config::new().driver(Driver::Caller)).unwrap();
    assert_eq!(further(), Vec::<String>::new());
    drop(service);

    #[cfg(feature = "dht")]
    the_dht_costs_two_threads_and_a_socket_which_end_with_the_service(&further);
}

/// Neither is there without the setting: see above, where the feature is on as well.
#[cfg(feature = "dht")]
fn the_dht_costs_two_threads_and_a_socket_which_end_with_the_service(further: &dyn Fn() -> Vec<String>) {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let before = descriptors();
    let config = Config::new().dht(true).dht_bootstrap([silent.local_addr().unwrap()]).port_map(false);
    let service = Service::new_from_config(config.listen(["tcp://127.0.0.1:0".parse().unwrap()])).unwrap();
    // The node asks the one by which it enters.
    silent.recv(&mut [0; 2_048]).unwrap();
    let named = |name: &str| further().iter().any(|thread| thread.starts_with(name));
    assert!(named("crust-dht") && named("Mainline Dht"), "{:?}", further());
    drop(service);
    assert_becomes(further, &[]);
    assert_eq!(descriptors(), before);
}

#[cfg(feature = "dht")]
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A thread takes its name when it first runs, and is listed for a moment after it was joined.
fn assert_becomes(names: &dyn Fn() -> Vec<String>, expected: &[&str]) {
    let until = Instant::now() + Duration::from_secs(30);
    while names() != expected && Instant::now() < until {
        thread::yield_now();
    }
    assert_eq!(names(), expected);
}

/// The ids of this program's threads.
fn threads() -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| task.unwrap().file_name().into_string().unwrap()).collect()
}

/// `None`: it has ended since.
fn name(id: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?;
    Some(text.trim().to_owned())
}
