//! Streams over a coturn of our own on loopback, and how they go on without it.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nat_traversal::{MappingConfig, MappingContext, RelayError, TurnServer};
use transport::{
    ConnectOptions, Listener, PathKind, Relay, Rendezvous, RendezvousOffer, RendezvousOptions, Stream,
    Transport, TransportConfig,
};

use crate::support::{soon, with_config};

struct Coturn {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Coturn {
    /// `None`, and says why, if there is no coturn here.
    fn start() -> Option<Self> {
        let program = ["/usr/bin/turnserver", "/usr/local/bin/turnserver"]
            .into_iter()
            .find(|at| Path::new(at).exists());
        let Some(program) = program else {
            // Past the harness, which swallows what a passing test prints.
            std::io::stdout()
                .write_all(b"NOT RUN: streams over coturn: turnserver is not installed\n")
                .unwrap();
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = Command::new(program)
            .args(["-n", "--no-cli", "--no-dtls", "--no-tls", "--lt-cred-mech", "--allow-loopback-peers"])
            .args(["--simple-log", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--realm=test"])
            .args(["--user=alice:secret", "-m", "1"])
            .arg(format!("--listening-port={port}"))
            .arg(format!("--pidfile={}", folder.path().join("pid").display()))
            .arg(format!("--userdb={}", folder.path().join("db").display()))
            .arg(format!("--log-file={}", folder.path().join("log").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let coturn = Self { child, folder, port };
        coturn.wait_until_it_answers();
        Some(coturn)
    }

    fn server(&self, over: &str) -> TurnServer {
        format!("turn:alice:secret@127.0.0.1:{}{over}", self.port).parse().unwrap()
    }

    fn wait_until_it_answers(&self) {
        let transport = transport();
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let soon = Instant::now() + Duration::from_secs(1);
            if Relay::allocate(&transport, &self.server(""), soon).is_ok() {
                return;
            }
        }
        panic!("coturn did not start: see {}", self.folder.path().display());
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait().map(drop)).unwrap_or_default();
    }
}

/// A port that is free for UDP and TCP.
fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Loopback carries larger datagrams than a relay on it does, which happens on no other network.
fn transport() -> Transport {
    with_config(TransportConfig::default().max_mtu(1_400))
}

fn prepare(transport: &Transport, options: &RendezvousOptions) -> (RendezvousOffer, Rendezvous) {
    let context = MappingContext::new(MappingConfig::new()).unwrap();
    Rendezvous::prepare(transport, &context, options).unwrap()
}

fn within(seconds: u64) -> ConnectOptions {
    ConnectOptions::new().timeout(Duration::from_secs(seconds))
}

fn meet(first: (RendezvousOffer, Rendezvous), second: (RendezvousOffer, Rendezvous)) -> [Stream; 2] {
    thread::scope(|scope| {
        let (first_offer, first) = first;
        let (second_offer, second) = second;
        let other = scope.spawn(move || second.connect(&first_offer, &within(20)).unwrap());
        [first.connect(&second_offer, &within(20)).unwrap(), other.join().unwrap()]
    })
}

fn exchange(mut one: &Stream, mut other: &Stream) {
    let mut word = [0; 5];
    one.write_all(b"hello").unwrap();
    other.read_exact(&mut word).unwrap();
    other.write_all(&word).unwrap();
    one.read_exact(&mut word).unwrap();
}

#[test]
fn two_that_only_reach_a_relay_meet_over_it_and_go_on_without_it() {
    let Some(coturn) = Coturn::start() else { return };
    let relayed = |transport: &Transport, over: &str| {
        let relay = Relay::allocate(transport, &coturn.server(over), soon()).unwrap();
        let options = RendezvousOptions::new().udp(false).tcp(false).listeners(false).relay(&relay);
        (prepare(transport, &options), relay)
    };
    let peers = [transport(), transport()];
    let (first, first_relay) = relayed(&peers[0], "");
    let (second, second_relay) = relayed(&peers[1], "?transport=tcp");
    let [one, other] = meet(first, second);
    exchange(&one, &other);
    assert_eq!([one.path().kind, other.path().kind], [PathKind::Relayed; 2]);
    assert_eq!((one.path().local, one.path().remote), (first_relay.addr(), second_relay.addr()));
    // Later they find a direct way, in the middle of a transfer.
    let listeners: Vec<_> =
        peers.iter().map(|peer| Listener::bind(peer, "quic://127.0.0.1:0").unwrap()).collect();
    let direct = RendezvousOptions::new().tcp(false).listeners(false);
    let (first_offer, first) = prepare(&peers[0], &direct);
    let (second_offer, second) = prepare(&peers[1], &direct);
    const BYTES: usize = 1 << 20;
    // One side knows the connection only.
    let [connection] = &peers[1].connections(peers[0].public_key())[..] else { panic!("there is one") };
    thread::scope(|scope| {
        scope.spawn(|| (&one).write_all(&[7; BYTES]).unwrap());
        scope.spawn(|| second.improve_connection(connection, &first_offer, &within(20)).unwrap());
        let path = first.improve(&one, &second_offer, &within(20)).unwrap();
        assert_eq!((path.kind, path.local), (PathKind::Lan, listeners[0].local_endpoint().addr()));
        let mut received = vec![0; BYTES];
        (&other).read_exact(&mut received).unwrap();
        assert!(received.iter().all(|byte| *byte == 7));
    });
    // The relays are not needed any more.
    drop((first_relay, second_relay, coturn));
    exchange(&one, &other);
    assert_eq!([one.path().kind, other.path().kind], [PathKind::Lan; 2]);
    assert_eq!(connection.path().unwrap().kind, PathKind::Lan);
    // It does not keep the connection.
    one.close(soon()).unwrap();
    drop(other);
    let deadline = soon();
    while connection.path().is_ok() {
        assert!(Instant::now() < deadline, "the connection ends with its last stream");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn one_relay_is_enough_for_both() {
    let Some(coturn) = Coturn::start() else { return };
    let peers = [transport(), transport()];
    let relay = Relay::allocate(&peers[0], &coturn.server(""), soon()).unwrap();
    let only_relayed = RendezvousOptions::new().udp(false).tcp(false).listeners(false).relay(&relay);
    let _listener = Listener::bind(&peers[1], "quic://127.0.0.1:0").unwrap();
    let direct = RendezvousOptions::new().tcp(false).listeners(false);
    let [one, other] = meet(prepare(&peers[0], &only_relayed), prepare(&peers[1], &direct));
    exchange(&one, &other);
    assert_eq!([one.path().kind, other.path().kind], [PathKind::Relayed; 2]);
    assert_eq!(other.path().remote, relay.addr());
    assert!(relay.failure().is_none());
}

#[test]
fn a_peer_is_told_that_a_relay_is_used_at_once_and_may_begin_there() {
    let Some(coturn) = Coturn::start() else { return };
    let peers = [transport(), transport()];
    let relay = Relay::allocate(&peers[0], &coturn.server(""), soon()).unwrap();
    let at_once = RendezvousOptions::new().udp(false).tcp(false).listeners(false).relay_at_once(true);
    let _listener = Listener::bind(&peers[1], "quic://127.0.0.1:0").unwrap();
    let called = RendezvousOptions::new().tcp(false).listeners(false).second(true);
    let [one, other] = meet(prepare(&peers[0], &at_once.relay(&relay)), prepare(&peers[1], &called));
    exchange(&one, &other);
    assert_eq!([one.path().kind, other.path().kind], [PathKind::Relayed; 2]);
    assert_eq!((one.path().local, other.path().remote), (relay.addr(), relay.addr()));
}

#[test]
fn a_direct_way_is_preferred_to_the_relay() {
    let Some(coturn) = Coturn::start() else { return };
    let peers = [transport(), transport()];
    let _listeners = [0, 1].map(|side: usize| Listener::bind(&peers[side], "quic://127.0.0.1:0").unwrap());
    let relay = Relay::allocate(&peers[0], &coturn.server(""), soon()).unwrap();
    let options = RendezvousOptions::new().tcp(false).listeners(false);
    let with_relay = options.clone().relay(&relay);
    let [one, other] = meet(prepare(&peers[0], &with_relay), prepare(&peers[1], &options));
    assert_eq!([one.path().kind, other.path().kind], [PathKind::Lan; 2]);
}

#[test]
fn a_relay_that_is_none_is_told_and_leaves_nothing() {
    let Some(coturn) = Coturn::start() else { return };
    let transport = transport();
    let wrong = coturn.server("").with_credentials("alice", "guess");
    assert!(matches!(Relay::allocate(&transport, &wrong, soon()), Err(RelayError::Server { .. })));
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody: TurnServer = format!("turn:a:b@{}", silent.local_addr().unwrap()).parse().unwrap();
    let begun = Instant::now();
    let outcome = Relay::allocate(&transport, &nobody, begun + Duration::from_millis(200));
    assert!(matches!(outcome, Err(RelayError::TimedOut { .. })), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
