//! What is left behind, and what strangers can take: threads, descriptors, memory, places. Counted from `/proc`, so Linux.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use transport::{
    ConnectOptions, Driver, Endpoint, Identity, Limits, Listener, Scheme, Stream, Transport, TransportConfig,
};

#[test]
fn a_thousand_connections_leave_nothing_behind() {
    let _alone = alone();
    for scheme in SCHEMES {
        let (client, server) = (transport(), transport());
        let listener = listen(&server, scheme);
        let endpoint = listener.endpoints().unwrap().next().unwrap();
        // The first ones fill pools and tables that are kept.
        (0..100).for_each(|_| greet(&client, &listener, endpoint));
        let (threads, descriptors, memory) = (library_threads(), settled_descriptors(0), resident_kib());
        (0..1_000).for_each(|_| greet(&client, &listener, endpoint));
        assert_eq!(library_threads(), threads, "{scheme}");
        assert_eq!(settled_descriptors(descriptors), descriptors, "{scheme}");
        let grown = resident_kib().saturating_sub(memory);
        // A leak of one small allocation a connection and side would be some 100 KiB.
        assert!(grown < 2 << 10, "{scheme}: {grown} KiB");
        drop((client, server, listener));
        assert_eq!(library_threads(), 0, "{scheme}");
    }
}

#[test]
fn a_thousand_idle_streams_need_one_thread_a_transport() {
    let _alone = alone();
    for scheme in SCHEMES {
        // All QUIC streams of a pair share one connection, which admits fewer by default.
        let limits = Limits::default().streams_per_connection(2_000);
        let config = TransportConfig::default().limits(limits);
        let server = Transport::new(Identity::generate(), config).unwrap();
        let client = transport();
        let listener = listen(&server, scheme);
        let endpoint = listener.endpoints().unwrap().next().unwrap();
        let streams: Vec<(Stream, Stream)> = (0..IDLE_STREAMS)
            .map(|_| {
                (
                    Stream::direct_connect(&client, endpoint).unwrap(),
                    listener.accept_deadline(soon()).unwrap(),
                )
            })
            .collect();
        assert_eq!(library_threads(), 2, "{scheme}: one for each transport");
        assert_eq!(client.stats().streams_open, IDLE_STREAMS as u64);
        drop(streams);
    }
}

#[test]
fn without_a_background_thread_there_is_none() {
    let _alone = alone();
    let config = TransportConfig::default().driver(Driver::Caller);
    let transport = Transport::new(Identity::generate(), config).unwrap();
    let _listener = listen(&transport, Scheme::Tcp);
    assert_eq!(library_threads(), 0);
}

/// Whoever opens connections and says nothing takes places; honest peers must get in beside them.
#[test]
fn a_thousand_half_open_connections_keep_nobody_out() {
    let _alone = alone();
    let server = transport();
    let listener = listen(&server, Scheme::Tcp);
    let endpoint = listener.endpoints().unwrap().next().unwrap();
    let memory = resident_kib();
    let silent: Vec<TcpStream> =
        (0..HALF_OPEN).map(|_| TcpStream::connect(endpoint.addr()).unwrap()).collect();
    let client = transport();
    let mut waits: Vec<Duration> = (0..100)
        .map(|_| {
            let begun = Instant::now();
            greet(&client, &listener, endpoint);
            begun.elapsed()
        })
        .collect();
    waits.sort();
    assert!(waits[98] < Duration::from_secs(1), "p99 {:?}", waits[98]);
    let grown = resident_kib().saturating_sub(memory);
    assert!(grown < 16 << 10, "{grown} KiB for {} half-open connections", silent.len());
}

/// A peer that sends a byte now and then has as long as any other.
#[test]
fn a_handshake_that_trickles_is_cut_off_at_its_deadline() {
    let _alone = alone();
    let config = TransportConfig::default().handshake_timeout(Duration::from_millis(500));
    let server = Transport::new(Identity::generate(), config).unwrap();
    let listener = listen(&server, Scheme::Tcp);
    let addr = listener.local_endpoint().addr();
    let mut slow = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, addr.port()))).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let begun = Instant::now();
    // The head of a record that promises 512 bytes, byte by byte.
    let mut trickle = [22, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(1));
    loop {
        let sent = slow.write_all(&[trickle.next().unwrap()]);
        match slow.read(&mut [0; 64]) {
            Err(error) if sent.is_ok() && matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {}
            _ => break,
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "never cut off");
    }
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!(server.stats().handshakes_failed, 1);
}

/// Initial packets from addresses whose owners never asked: beyond the limit they cost an answer, and no memory.
#[test]
fn spoofed_initials_keep_nobody_out() {
    let _alone = alone();
    let server = transport();
    let listener = listen(&server, Scheme::Quic);
    let endpoint = listener.endpoints().unwrap().next().unwrap();
    let initials = capture_initials();
    let sources: Vec<UdpSocket> = (0..180)
        .map(|number| UdpSocket::bind((Ipv4Addr::new(127, 1 + number % 9, number, 7), 0)).unwrap())
        .collect();
    let memory = resident_kib();
    let over = AtomicBool::new(false);
    let (sent, mut waits) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&initials, &sources, endpoint.addr(), &over));
        // The flood has taken all places before the first honest peer comes.
        thread::sleep(Duration::from_millis(500));
        let waits: Vec<Option<Duration>> =
            (0..200u8).map(|number| honest_dial(number, &listener, endpoint)).collect();
        over.store(true, Ordering::Relaxed);
        (flood.join().unwrap(), waits)
    });
    waits.sort_by_key(|wait| wait.unwrap_or(Duration::MAX));
    let p99 = waits[197].expect("99 % of the honest get in");
    assert!(p99 < Duration::from_secs(1), "p99 {p99:?} under {sent} spoofed packets");
    let grown = resident_kib().saturating_sub(memory);
    assert!(grown < 16 << 10, "{grown} KiB for {sent} spoofed packets");
}

/// First packets of real dials, each of a connection of its own.
fn capture_initials() -> Vec<Vec<u8>> {
    let trap = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    trap.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let nobody = Identity::generate().public_key();
    let endpoint = Endpoint::new(Scheme::Quic, trap.local_addr().unwrap(), nobody);
    let mut initials = Vec::new();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let options = ConnectOptions::new().timeout(Duration::from_millis(3));
                for _ in 0..200 {
                    let _ = Stream::connect_with(&transport(), endpoint, &options);
                }
            });
        }
        let mut datagram = [0; 2_000];
        while let Ok(length) = trap.recv(&mut datagram) {
            // Long header, Initial (RFC 9000 §17.2.2); farewells are shorter.
            if length >= 1_200 && datagram[0] & 0xb0 == 0x80 {
                initials.push(datagram[..length].to_vec());
            }
        }
    });
    assert!(initials.len() > 1_200, "{} first packets, more than there are places", initials.len());
    initials
}

/// Ten thousand a second, as far as the machine allows, and no more than ten seconds long.
fn flood(initials: &[Vec<u8>], sources: &[UdpSocket], to: SocketAddr, over: &AtomicBool) -> usize {
    let begun = Instant::now();
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(10) {
        for _ in 0..100 {
            let _ = sources[sent % sources.len()].send_to(&initials[sent % initials.len()], to);
            sent += 1;
        }
        let due = begun + Duration::from_millis(sent as u64 / 10);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    sent
}

fn honest_dial(number: u8, listener: &Listener, endpoint: Endpoint) -> Option<Duration> {
    let client = transport();
    let from = SocketAddr::from((Ipv4Addr::new(127, 200, 0, number), 0));
    let options = ConnectOptions::new().local_addr(from).timeout(Duration::from_secs(3));
    let begun = Instant::now();
    Stream::connect_with(&client, endpoint, &options).ok()?;
    let wait = begun.elapsed();
    listener.accept_deadline(soon()).ok()?;
    Some(wait)
}

fn greet(client: &Transport, listener: &Listener, endpoint: Endpoint) {
    let options = ConnectOptions::new().timeout(Duration::from_secs(20));
    let mut dialled = Stream::connect_with(client, endpoint, &options).unwrap();
    let mut accepted = listener.accept_deadline(soon()).unwrap();
    dialled.write_all(b"hello").unwrap();
    let mut text = [0; 5];
    accepted.read_exact(&mut text).unwrap();
}

fn transport() -> Transport {
    Transport::new(Identity::generate(), TransportConfig::default()).unwrap()
}

fn listen(transport: &Transport, scheme: Scheme) -> Listener {
    Listener::bind(transport, format!("{scheme}://127.0.0.1:0")).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// The tests count what belongs to the whole process, so one runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads that this library has named.
fn library_threads() -> usize {
    let names = fs::read_dir("/proc/self/task").unwrap().flatten();
    names
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .filter(|name| name.starts_with("transport-"))
        .count()
}

/// Descriptors in use, once they have come down to `expected` or had ten seconds to: ends take a moment.
fn settled_descriptors(expected: usize) -> usize {
    let count = || fs::read_dir("/proc/self/fd").unwrap().count();
    let deadline = Instant::now() + Duration::from_secs(if expected == 0 { 1 } else { 10 });
    while count() > expected && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    count()
}

fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

const SCHEMES: [Scheme; 2] = [Scheme::Tcp, Scheme::Quic];
const IDLE_STREAMS: usize = 1_000;
/// Just below what [`transport::Limits::pending_handshakes`] admits.
const HALF_OPEN: usize = 1_000;
