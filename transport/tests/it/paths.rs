//! Streams whose path changes under them, over real sockets: a forwarder stands for the NAT on the way.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nat_traversal::PunchedUdpSocket;
use transport::{
    ConnectOptions, Endpoint, Identity, Listener, Scheme, Stream, StreamError, Transport, TransportConfig,
};

use crate::support::{listen, soon, transport};

/// Passes datagrams between one client and a server, as a NAT does; told to, it takes another port towards the server.
struct Forwarder {
    inside: SocketAddr,
    rebind: Arc<AtomicUsize>,
    cut: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    fn new(server: SocketAddr) -> Self {
        let inside = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = inside.local_addr().unwrap();
        let (rebind, cut, end) =
            (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default(), Arc::default());
        let flags = (Arc::clone(&rebind), Arc::clone(&cut), Arc::clone(&end));
        let thread = thread::spawn(move || Self::run(&inside, server, &flags));
        Self { inside: addr, rebind, cut, end, thread: Some(thread) }
    }

    fn run(
        inside: &UdpSocket,
        server: SocketAddr,
        flags: &(Arc<AtomicUsize>, Arc<AtomicBool>, Arc<AtomicBool>),
    ) {
        let (rebind, cut, end) = flags;
        let mut outside = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut client, mut bound) = (None, 0);
        let mut buffer = vec![0; 65_535];
        inside.set_nonblocking(true).unwrap();
        outside.set_nonblocking(true).unwrap();
        while !end.load(SeqCst) {
            if rebind.load(SeqCst) != bound {
                bound += 1;
                outside = UdpSocket::bind("127.0.0.1:0").unwrap();
                outside.set_nonblocking(true).unwrap();
            }
            let mut idle = true;
            while let Ok((length, source)) = inside.recv_from(&mut buffer) {
                client = Some(source);
                idle = false;
                if !cut.load(SeqCst) {
                    drop(outside.send_to(&buffer[..length], server));
                }
            }
            while let Ok((length, _)) = outside.recv_from(&mut buffer) {
                idle = false;
                if let Some(client) = client.filter(|_| !cut.load(SeqCst)) {
                    drop(inside.send_to(&buffer[..length], client));
                }
            }
            if idle {
                thread::park_timeout(Duration::from_micros(200));
            }
        }
    }

    fn rebind(&self) {
        self.rebind.fetch_add(1, SeqCst);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.end.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index % 251) as u8 ^ (index >> 16) as u8).collect()
}

#[test]
fn a_transfer_outlives_a_nat_that_changes_its_port_again_and_again() {
    const BYTES: usize = 6 << 20;
    let (server, client) = (transport(), transport());
    let (listener, endpoint) = listen(&server, Scheme::Quic);
    let forwarder = Forwarder::new(endpoint.addr());
    let through = Endpoint::new(Scheme::Quic, forwarder.inside, endpoint.public_key());
    let mut uploading = Stream::direct_connect(&client, through).unwrap();
    let mut accepted = listener.accept_deadline(soon()).unwrap();
    let before = accepted.path();
    thread::scope(|scope| {
        scope.spawn(|| {
            for part in pattern(BYTES).chunks(BYTES / 4) {
                uploading.write_all(part).unwrap();
                forwarder.rebind();
            }
            uploading.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        accepted.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        accepted.read_to_end(&mut received).unwrap();
        assert!(received == pattern(BYTES), "{} bytes", received.len());
    });
    let after = accepted.wait_path_change(&before, soon()).unwrap();
    assert!(after.changes >= 1 && after.remote != before.remote, "{before:?} {after:?}");
    assert_eq!(uploading.path().changes, 0, "the dialler is where it was");
}

#[test]
fn a_download_finds_its_reader_again() {
    const BYTES: usize = 4 << 20;
    let (server, client) = (transport(), transport());
    let (listener, endpoint) = listen(&server, Scheme::Quic);
    let forwarder = Forwarder::new(endpoint.addr());
    let through = Endpoint::new(Scheme::Quic, forwarder.inside, endpoint.public_key());
    let mut reading = Stream::direct_connect(&client, through).unwrap();
    let mut accepted = listener.accept_deadline(soon()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            accepted.write_all(&pattern(BYTES)).unwrap();
            accepted.shutdown(std::net::Shutdown::Write).unwrap();
        });
        reading.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut received = vec![0; BYTES / 4];
        reading.read_exact(&mut received).unwrap();
        forwarder.rebind();
        let begun = Instant::now();
        reading.read_to_end(&mut received).unwrap();
        assert!(received == pattern(BYTES), "{} bytes", received.len());
        // By what the reader acknowledges, or by its probe after a second of silence; the keep-alive comes after ten.
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_stream_moves_to_a_hole_that_was_offered_and_back_when_that_dies() {
    let (server, client) = (transport(), transport());
    let (listener, endpoint) = listen(&server, Scheme::Quic);
    let forwarder = Forwarder::new(endpoint.addr());
    let through = Endpoint::new(Scheme::Quic, forwarder.inside, endpoint.public_key());
    let dialled = Stream::direct_connect(&client, through).unwrap();
    let accepted = listener.accept_deadline(soon()).unwrap();
    exchange(&dialled, &accepted);
    let (before, theirs) = (dialled.path(), accepted.path());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = socket.local_addr().unwrap();
    let mut punched = punched(endpoint.addr());
    punched.socket = socket;
    dialled.offer_path(punched).unwrap();
    let after = dialled.wait_path_change(&before, soon()).unwrap();
    assert_eq!((after.local, after.remote), (local, endpoint.addr()));
    // The acceptor follows as soon as it hears something by the new path.
    let followed = loop {
        exchange(&dialled, &accepted);
        let path = accepted.path();
        if path.changes != theirs.changes {
            break path;
        }
    };
    assert_eq!(followed.remote, local);
    forwarder.cut.store(true, SeqCst);
    exchange(&dialled, &accepted);
}

/// Two transports and a punch between two sockets of this host, which is what a punch gives.
fn punched(peer: SocketAddr) -> PunchedUdpSocket {
    use nat_traversal::{MappedUdpSocket, MappingConfig, MappingContext, gen_rendezvous_info};
    let context = MappingContext::new(MappingConfig::new()).unwrap();
    let [one, other] =
        [(); 2].map(|()| MappedUdpSocket::map(UdpSocket::bind("127.0.0.1:0").unwrap(), &context).unwrap());
    let (first, first_info) = gen_rendezvous_info(one.endpoints);
    let (second, second_info) = gen_rendezvous_info(other.endpoints);
    let deadline = soon();
    thread::scope(|scope| {
        scope.spawn(|| PunchedUdpSocket::punch_hole(other.socket, second, &first_info, &context, deadline));
        let mut punched =
            PunchedUdpSocket::punch_hole(one.socket, first, &second_info, &context, deadline).unwrap();
        punched.peer_addr = peer;
        punched
    })
}

fn exchange(mut one: &Stream, mut other: &Stream) {
    let mut word = [0; 5];
    for stream in [one, other] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    one.write_all(b"hello").unwrap();
    other.read_exact(&mut word).unwrap();
    other.write_all(&word).unwrap();
    one.read_exact(&mut word).unwrap();
}

#[test]
fn packets_replayed_from_elsewhere_move_nothing_and_draw_little() {
    let (server, client) = (transport(), transport());
    let (listener, endpoint) = listen(&server, Scheme::Quic);
    let tap = UdpSocket::bind("127.0.0.1:0").unwrap();
    tap.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let through = Endpoint::new(Scheme::Quic, tap.local_addr().unwrap(), endpoint.public_key());
    // The tap is a NAT that keeps what it passes on.
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    outside.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let (done, mut captured) = (AtomicBool::new(false), Vec::new());
    let (dialled, accepted) = thread::scope(|scope| {
        let streams = scope.spawn(|| {
            let dialled = Stream::connect_with(&client, through, &ConnectOptions::new()).unwrap();
            let accepted = listener.accept_deadline(soon()).unwrap();
            (0..20).for_each(|_| exchange(&dialled, &accepted));
            done.store(true, SeqCst);
            (dialled, accepted)
        });
        let (mut buffer, mut inside) = (vec![0; 65_535], None);
        while !done.load(SeqCst) {
            tap.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            if let Ok((length, source)) = tap.recv_from(&mut buffer) {
                inside = Some(source);
                captured.push(buffer[..length].to_vec());
                outside.send_to(&buffer[..length], endpoint.addr()).unwrap();
            }
            while let (Some(inside), Ok(length)) = (inside, outside.recv(&mut buffer)) {
                tap.send_to(&buffer[..length], inside).unwrap();
            }
        }
        streams.join().unwrap()
    });
    let before = accepted.path();
    let attacker = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut sent = 0;
    for datagram in captured.iter().cycle().take(500) {
        sent += attacker.send_to(datagram, endpoint.addr()).unwrap();
    }
    attacker.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let (mut drawn, mut buffer) = (0, vec![0; 65_535]);
    loop {
        match attacker.recv(&mut buffer) {
            Ok(length) => drawn += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(drawn <= 3 * sent, "{drawn} bytes drawn by {sent}");
    assert_eq!(accepted.path().remote, before.remote);
    let waited = accepted.wait_path_change(&before, Instant::now() + Duration::from_millis(10));
    assert_eq!(waited, Err(StreamError::TimedOut));
    drop(dialled);
}

#[test]
fn a_peer_that_was_started_anew_on_its_port_ends_the_streams_of_its_earlier_life() {
    let start = |addr: &str| {
        let server = Transport::new(Identity::from_seed([7; 32]), TransportConfig::default()).unwrap();
        let listener = Listener::bind(&server, addr).unwrap();
        (server, listener)
    };
    let (server, listener) = start("quic://127.0.0.1:0");
    let place = listener.local_endpoint();
    let client = transport();
    let forwarder = Forwarder::new(place.addr());
    let through = Endpoint::new(Scheme::Quic, forwarder.inside, server.public_key());
    let mut dialled = Stream::direct_connect(&client, through).unwrap();
    let accepted = listener.accept_deadline(soon()).unwrap();
    exchange(&dialled, &accepted);
    // Nobody hears it go.
    forwarder.cut.store(true, SeqCst);
    drop((accepted, listener, server));
    let (_server, _listener) = start(&place.to_string());
    forwarder.cut.store(false, SeqCst);
    let begun = Instant::now();
    dialled.write_all(b"are you there?").unwrap();
    let error = dialled.read(&mut [0]).unwrap_err();
    assert_eq!(StreamError::of(&error), Some(&StreamError::UnexpectedEof));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
