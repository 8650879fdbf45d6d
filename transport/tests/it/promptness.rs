//! How long calls take to end once their transport is dropped or their deadline has passed: ten tries each. For
//! `.ci/figures/15-promptness`; the everyday tests ask for the same with a wide margin.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use transport::{
    ConnectOptions, Driver, Endpoint, Identity, Scheme, Stream, StreamSet, Transport, TransportConfig,
};

use crate::support::{SCHEMES, interrupted, listen, pair, transport, with_config};

#[test]
#[ignore = "a figure"]
fn figures_of_promptness() {
    let mut late = Vec::new();
    for scheme in SCHEMES {
        for (what, measure) in CASES {
            let mut times: Vec<_> = (0..TRIES).map(|_| measure(scheme)).collect();
            times.sort_unstable();
            let (median, worst) = (times[TRIES / 2], times[TRIES - 1]);
            println!("FIGURE {scheme}|{what}|{:.1}|{:.1}", millis(median), millis(worst));
            if median > PROMISED {
                late.push(format!("{scheme}: {what}: {median:?}"));
            }
        }
    }
    assert!(late.is_empty(), "medians over {PROMISED:?}: {late:?}");
}

/// What is measured, and how long after its end was called for it ended.
type Case = (&'static str, fn(Scheme) -> Duration);

const CASES: [Case; 13] = [
    ("accept, transport dropped", |scheme| {
        let server = transport();
        let (listener, _) = listen(&server, scheme);
        interrupted(move || listener.accept().unwrap_err(), || drop(server)).1
    }),
    ("connect, transport closed", |scheme| {
        let (endpoint, _silent) = silent(scheme);
        let client = transport();
        let clone = client.clone();
        interrupted(move || Stream::direct_connect(&clone, endpoint).unwrap_err(), || client.close()).1
    }),
    ("read, transport dropped", |scheme| {
        let (client, server) = (transport(), transport());
        let (mut stream, _far) = pair(&client, &server, scheme);
        interrupted(move || stream.read(&mut [0; 1]).unwrap_err(), || drop(client)).1
    }),
    ("write, transport dropped", |scheme| {
        let (client, server) = (transport(), transport());
        let (mut stream, _stalled) = pair(&client, &server, scheme);
        interrupted(move || while stream.write(&[0; 1 << 16]).is_ok() {}, || drop(client)).1
    }),
    ("StreamSet::wait, transport dropped", |scheme| {
        let (client, server) = (transport(), transport());
        let (stream, _far) = pair(&client, &server, scheme);
        let mut set = StreamSet::new(&client).unwrap();
        set.add(stream).unwrap();
        interrupted(move || while set.wait(&mut Vec::new(), None).is_ok() {}, || drop(client)).1
    }),
    ("turn, transport closed", |scheme| {
        let caller = with_config(TransportConfig::default().driver(Driver::Caller));
        let (_listener, _) = listen(&caller, scheme);
        let clone = caller.clone();
        let turn = move || while clone.turn(far_away()).is_ok() {};
        interrupted(turn, || caller.close()).1
    }),
    ("accept_deadline", |scheme| {
        let server = transport();
        let (listener, _) = listen(&server, scheme);
        overshoot(|deadline| assert!(listener.accept_deadline(deadline).is_err()))
    }),
    ("connect, deadline", |scheme| {
        let (endpoint, _silent) = silent(scheme);
        let client = transport();
        overshoot(|deadline| {
            let options = ConnectOptions::new().deadline(deadline);
            assert!(Stream::connect_with(&client, endpoint, &options).is_err());
        })
    }),
    ("read, timeout", |scheme| {
        let (client, server) = (transport(), transport());
        let (mut stream, _far) = pair(&client, &server, scheme);
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        overshoot(|_| assert!(stream.read(&mut [0; 1]).is_err()))
    }),
    ("write, timeout", |scheme| {
        let (client, server) = (transport(), transport());
        let (mut stream, _stalled) = pair(&client, &server, scheme);
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        // The last write begins with a full pipe, or fills it and waits for the rest.
        let mut begun = Instant::now();
        while stream.write(&[0; 1 << 16]).is_ok() && begun.elapsed() < TIMEOUT {
            begun = Instant::now();
        }
        begun.elapsed().saturating_sub(TIMEOUT)
    }),
    ("StreamSet::wait, deadline", |scheme| {
        let (client, server) = (transport(), transport());
        let (stream, _far) = pair(&client, &server, scheme);
        let mut set = StreamSet::new(&client).unwrap();
        set.add(stream).unwrap();
        // A new stream is writable, which is told of first.
        while set.wait(&mut Vec::new(), Some(Instant::now() + TIMEOUT)).is_ok() {}
        overshoot(|deadline| assert!(set.wait(&mut Vec::new(), Some(deadline)).is_err()))
    }),
    ("close, deadline", |scheme| {
        let (client, server) = (transport(), with_config(TransportConfig::default().driver(Driver::Caller)));
        let (mut stream, _stalled) = pair_with_idle(&client, &server, scheme);
        stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        while stream.write(&[0; 1 << 16]).is_ok() {}
        overshoot(|deadline| assert!(stream.close(deadline).is_err()))
    }),
    ("drop of a transport with nothing to do", |scheme| {
        let server = transport();
        let (_listener, _) = listen(&server, scheme);
        let begun = Instant::now();
        drop(server);
        begun.elapsed()
    }),
];

fn overshoot(wait: impl FnOnce(Instant)) -> Duration {
    let deadline = Instant::now() + TIMEOUT;
    wait(deadline);
    Instant::now().saturating_duration_since(deadline)
}

/// Where somebody listens and says nothing.
fn silent(scheme: Scheme) -> (Endpoint, (TcpListener, UdpSocket)) {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = if scheme == Scheme::Tcp { tcp.local_addr() } else { udp.local_addr() };
    (Endpoint::new(scheme, addr.unwrap(), Identity::generate().public_key()), (tcp, udp))
}

/// Two ends whose accepting one nobody turns for afterwards.
fn pair_with_idle(client: &Transport, server: &Transport, scheme: Scheme) -> (Stream, Stream) {
    let (listener, endpoint) = listen(server, scheme);
    std::thread::scope(|scope| {
        let accepted = scope.spawn(|| listener.accept_deadline(far_away()).unwrap());
        (Stream::direct_connect(client, endpoint).unwrap(), accepted.join().unwrap())
    })
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const TRIES: usize = 10;
/// How late a call may end.
const PROMISED: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_millis(100);
