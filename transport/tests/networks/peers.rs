//! What runs inside the namespaces; each peer prints what the test waits for, a line each.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use transport::{
    ConnectError, ConnectOptions, Identity, Listener, Stream, StreamError, Transport, TransportConfig,
};

pub(crate) fn run(role: &str, arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match (role, &arguments[..]) {
        ("sink", [scheme, address]) => sink(scheme, address),
        ("source", [endpoint, bytes]) => source(endpoint, bytes.parse().unwrap()),
        ("wait", [scheme, address, dead_after]) => wait(scheme, address, dead_after),
        ("dial-and-wait", [endpoint, dead_after]) => dial_and_wait(endpoint, dead_after),
        ("gaps", [address]) => read_with_gaps(&mut accept(&transport(), "quic", address)),
        ("stream", [address]) => write_paced(&mut accept(&transport(), "quic", address)),
        ("dial-and-gaps", [endpoint]) => {
            read_with_gaps(&mut Stream::direct_connect(&transport(), *endpoint).unwrap())
        }
        ("dial-and-stream", [endpoint]) => {
            write_paced(&mut Stream::direct_connect(&transport(), *endpoint).unwrap())
        }
        ("look-up", []) => look_up(),
        ("stream", [scheme, address, dead_after]) => {
            write_paced(&mut accept(&mortal(dead_after), scheme, address));
        }
        ("dial-and-gaps", [endpoint, dead_after]) => {
            read_with_gaps(&mut Stream::direct_connect(&mortal(dead_after), *endpoint).unwrap());
        }
        other => panic!("{other:?}"),
    }
}

/// Says how late dials to a name end that is never found: after their deadline, and after their transport was closed. Ten
/// tries each, the median and the worst, in milliseconds.
fn look_up() {
    let key = Identity::generate().public_key();
    let name = format!("tcp://nobody.example:1?pubkey={key}");
    let deadline = || {
        let (transport, deadline) = (transport(), Instant::now() + PAUSE);
        let options = ConnectOptions::new().deadline(deadline);
        let error = Stream::connect_with(&transport, name.as_str(), &options).unwrap_err();
        assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
        Instant::now().saturating_duration_since(deadline)
    };
    let closed = || {
        let transport = transport();
        let (closer, name) = (transport.clone(), name.clone());
        let dial = thread::spawn(move || {
            let error = Stream::direct_connect(&transport, name.as_str()).unwrap_err();
            assert!(matches!(error, ConnectError::Closed), "{error:?}");
            Instant::now()
        });
        thread::sleep(PAUSE);
        let begun = Instant::now();
        closer.close();
        dial.join().unwrap().saturating_duration_since(begun)
    };
    let cases: [(&str, &dyn Fn() -> Duration); 2] =
        [("connect, deadline", &deadline), ("connect, transport closed", &closed)];
    for (what, measure) in cases {
        let mut millis: Vec<_> = (0..10).map(|_| measure().as_secs_f64() * 1e3).collect();
        millis.sort_by(f64::total_cmp);
        println!("name|{what}|{:.1}|{:.1}", millis[5], millis[9]);
    }
}

/// Reads one stream to its end and says whether it was whole.
fn sink(scheme: &str, address: &str) {
    let transport = Transport::new(Identity::generate(), TransportConfig::default()).unwrap();
    let mut stream = accept(&transport, scheme, address);
    let mut received = Vec::new();
    let whole = stream.read_to_end(&mut received).map(|_| pattern(received.len()) == received);
    match whole {
        Ok(true) => println!("received {} whole", received.len()),
        other => println!("received {}: {other:?}", received.len()),
    }
}

/// Writes, and drops everything at once.
fn source(endpoint: &str, bytes: usize) {
    // What is left when the last handle is dropped gets this long; a round trip with losses takes its time.
    let config = TransportConfig::default().linger(Duration::from_secs(20));
    let transport = Transport::new(Identity::generate(), config).unwrap();
    let mut stream = Stream::direct_connect(&transport, endpoint).unwrap();
    stream.write_all(&pattern(bytes)).unwrap();
}

fn wait(scheme: &str, address: &str, dead_after: &str) {
    let transport = mortal(dead_after);
    tell_end(accept(&transport, scheme, address));
}

fn dial_and_wait(endpoint: &str, dead_after: &str) {
    let transport = mortal(dead_after);
    tell_end(Stream::direct_connect(&transport, endpoint).unwrap());
}

fn mortal(dead_after: &str) -> Transport {
    let dead_after = Duration::from_secs(dead_after.parse().unwrap());
    Transport::new(Identity::generate(), TransportConfig::default().dead_after(dead_after)).unwrap()
}

fn accept(transport: &Transport, scheme: &str, address: &str) -> Stream {
    let listener = Listener::bind(transport, format!("{scheme}://{address}:0")).unwrap();
    println!("{}", listener.endpoints().unwrap().next().unwrap());
    listener.accept_deadline(Instant::now() + Duration::from_secs(30)).unwrap()
}

/// Waits for what will never come, and says what came instead.
fn tell_end(mut stream: Stream) {
    // A byte each way, so that both sides know that the stream is there.
    stream.write_all(b"!").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    println!("waiting");
    match stream.read(&mut [0]) {
        Ok(read) => println!("read {read}"),
        Err(error) => println!("{:?}", StreamError::of(&error).unwrap()),
    }
}

fn transport() -> Transport {
    Transport::new(Identity::generate(), TransportConfig::default()).unwrap()
}

/// Writes for two seconds, and says when it has begun.
fn write_paced(stream: &mut Stream) {
    // A byte each way: the dialler's stream is there for both only then.
    stream.write_all(b"!").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    for chunk in 0..PACED_CHUNKS {
        if chunk == PACED_CHUNKS / 4 {
            println!("under way");
        }
        stream.write_all(&pattern(PACED_BYTES)).unwrap();
        thread::park_timeout(Duration::from_millis(20));
    }
    stream.try_clone().unwrap().close(Instant::now() + Duration::from_secs(30)).unwrap();
}

fn read_with_gaps(stream: &mut Stream) {
    stream.write_all(b"!").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut received, mut longest, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => return println!("received {}: {error}", received.len()),
        };
        longest = longest.max(last.elapsed());
        last = Instant::now();
        received.extend_from_slice(&buffer[..read]);
    }
    let whole = received == pattern(PACED_BYTES).repeat(PACED_CHUNKS);
    let result = if whole { "all" } else { "something else" };
    println!("received {result}, longest gap {}", longest.as_millis());
}

const PACED_CHUNKS: usize = 100;
const PACED_BYTES: usize = 16 << 10;

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index % 251) as u8 ^ (index >> 16) as u8).collect()
}

/// Long enough for a dial to settle into its wait.
const PAUSE: Duration = Duration::from_millis(100);
