//! Two endpoints and the wire between them, in virtual time: for tests.
#![allow(clippy::unwrap_used, reason = "for tests")]
#![cfg_attr(not(test), allow(dead_code, reason = "fuzz targets use a part of it"))]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use super::{
    PathMtu, QuicConnection, QuicEndpoint, QuicEvent, QuicHandle, QuicSettings, QuicStreamId, ReadEnd,
    Routed, WriteEnd,
};
use crate::{
    Identity, Limits, NetworkName, ProtocolLabel,
    io::clock,
    protocol::{
        dice::splitmix64,
        paths::UdpSource,
        preface::{Preface, Purpose},
        raw_key,
        verdict::Verdict,
    },
};

/// What the wire does to datagrams, each way.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) delay: Duration,
    /// Up to so much more, drawn for each datagram: larger than the gap between two, it reorders them.
    pub(super) jitter: Duration,
    pub(super) lost_per_mille: u64,
    /// Larger datagrams vanish.
    pub(super) mtu: usize,
    pub(super) seed: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self { delay: MS * 20, jitter: Duration::ZERO, lost_per_mille: 0, mtu: 1_500, seed: 1 }
    }
}

pub(super) struct Side {
    pub(super) identity: Identity,
    pub(super) endpoint: QuicEndpoint,
    pub(super) connections: BTreeMap<usize, Box<QuicConnection>>,
    pub(super) addr: SocketAddr,
    /// Answers with this, or leaves it to the test.
    pub(super) verdict: Option<Verdict>,
    pub(super) events: Vec<QuicEvent>,
    pub(super) sent: Vec<(Instant, usize)>,
}

pub(super) struct Pair {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) link: Link,
    pub(super) dialer: Side,
    pub(super) acceptor: Side,
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    count: u64,
}

impl Pair {
    pub(super) fn new(link: Link) -> Self {
        Self::with(link, |_| {})
    }

    pub(super) fn with(link: Link, adjust: impl Fn(&mut QuicSettings)) -> Self {
        let start = clock::now();
        Self {
            start,
            now: start,
            link,
            dialer: Side::new(1, "192.0.2.1:1000", &adjust),
            acceptor: Side::new(2, "192.0.2.2:2000", &adjust),
            wire: BTreeMap::new(),
            count: 0,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Dials the acceptor, expecting its key, with a stream of ticket 1.
    pub(super) fn dial(&mut self) -> QuicHandle {
        self.dial_expecting(self.acceptor.identity.public_key())
    }

    pub(super) fn dial_expecting(&mut self, expected: crate::PublicKey) -> QuicHandle {
        let to = UdpSource { socket: 0, addr: self.acceptor.addr };
        let (handle, connection) = self.dialer.endpoint.dial(self.now, to, expected, PATH, false).unwrap();
        self.dialer.connections.insert(handle.0, connection);
        self.dialer.connection(handle).open(1, &preface());
        self.flush();
        handle
    }

    /// Dials, and returns the stream as both sides name it, once the verdict is there.
    pub(super) fn connect(&mut self) -> (QuicHandle, QuicHandle, QuicStreamId) {
        let handle = self.dial();
        self.run(Duration::from_secs(30), |pair| pair.verdict().is_some());
        let stream = self.verdict().expect("a verdict within 30 s").0;
        let theirs = *self.acceptor.connections.keys().last().unwrap();
        (handle, QuicHandle(theirs), stream)
    }

    pub(super) fn verdict(&self) -> Option<(QuicStreamId, Verdict)> {
        self.dialer.events.iter().find_map(|event| match event {
            QuicEvent::Verdict { stream, verdict } => Some((*stream, *verdict)),
            _ => None,
        })
    }

    /// Goes on until `done`, or nothing is left to happen, or the time is over. Tells whether it was done.
    pub(super) fn run(&mut self, most: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + most;
        self.flush();
        loop {
            if done(self) {
                return true;
            }
            self.flush();
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let timers = [self.dialer.poll_timeout(), self.acceptor.poll_timeout()];
            let Some(next) = timers.into_iter().flatten().chain(arrival).min() else { return false };
            if next > end {
                self.now = end;
                return done(self);
            }
            self.now = self.now.max(next);
            self.deliver();
            self.dialer.handle_timeout(self.now);
            self.acceptor.handle_timeout(self.now);
            self.flush();
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let (from, to, bytes) = entry.remove();
            let side = if to == self.acceptor.addr { &mut self.acceptor } else { &mut self.dialer };
            if let Some(answer) = side.handle(self.now, from, &bytes) {
                self.send(to, from, answer);
            }
        }
    }

    /// Puts a datagram on the wire, whoever `from` claims to be.
    pub(super) fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.count += 1;
        let draw = self.draw();
        if bytes.len() > self.link.mtu || draw % 1_000 < self.link.lost_per_mille {
            return;
        }
        let jitter_nanos = u64::try_from(self.link.jitter.as_nanos()).unwrap().max(1);
        let at = self.now + self.link.delay + Duration::from_nanos(self.draw() % jitter_nanos);
        self.wire.insert((at, self.count), (from, to, bytes));
    }

    /// Puts the next datagram on the wire once more, with a bit changed or as it is.
    pub(super) fn repeat(&mut self, change: Option<u8>) {
        let Some((from, to, mut bytes)) = self.wire.values().next().cloned() else { return };
        if let Some(change) = change {
            let place = usize::from(change) * 7 % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << (change & 7);
            }
        }
        self.send(from, to, bytes);
    }

    /// The datagram that was put on the wire last.
    pub(super) fn take_last(&mut self) -> Vec<u8> {
        let last = self.wire.keys().copied().max_by_key(|(_, count)| *count).expect("something was sent");
        self.wire.remove(&last).expect("it is there").2
    }

    fn draw(&mut self) -> u64 {
        splitmix64(&mut self.link.seed)
    }

    /// Lets both sides say what they have to say.
    pub(super) fn flush(&mut self) {
        let (dialer, acceptor) = (self.dialer.addr, self.acceptor.addr);
        for (datagrams, from, to) in [
            (self.dialer.drain(self.now), dialer, acceptor),
            (self.acceptor.drain(self.now), acceptor, dialer),
        ] {
            for datagram in datagrams {
                self.send(from, to, datagram);
            }
        }
    }

    /// Sends `bytes` from the dialer to the acceptor, whose reader takes at most `most` at a time, and the end.
    pub(super) fn transfer(&mut self, bytes: &[u8], most: usize) -> Vec<u8> {
        let (ours, theirs, stream) = self.connect();
        let (mut written, mut got, mut ended) = (0, Vec::new(), false);
        let mut buffer = vec![0; most];
        self.run(Duration::from_secs(600), |pair| {
            let connection = pair.dialer.connection(ours);
            while written < bytes.len() {
                match connection.write(stream, &bytes[written..]) {
                    Ok(count) => written += count,
                    Err(WriteEnd::Blocked) => break,
                    Err(WriteEnd::Failed(error)) => panic!("write: {error}"),
                }
            }
            if written == bytes.len() {
                connection.finish(stream);
            }
            loop {
                match pair.acceptor.connection(theirs).read(stream, &mut buffer) {
                    Ok(0) => break ended = true,
                    Ok(count) => got.extend_from_slice(&buffer[..count]),
                    Err(ReadEnd::Blocked) => break,
                    Err(ReadEnd::Failed(error)) => panic!("read: {error}"),
                }
            }
            ended && pair.dialer.connection(ours).acknowledged(stream).is_some()
        });
        assert!(ended, "the end arrived");
        got
    }
}

impl Side {
    fn new(seed: u8, addr: &str, adjust: &impl Fn(&mut QuicSettings)) -> Self {
        let identity = Identity::from_seed([seed; 32]);
        let tls = raw_key::TlsConfigs::new(&identity).without_exporter_log();
        let mut settings = QuicSettings {
            client_tls: tls.client,
            server_tls: tls.server,
            dead_after: Some(Duration::from_secs(30)),
            handshake_timeout: Duration::from_secs(10),
            limits: Limits::default(),
            max_mtu: 1_452,
            may_fragment: false,
            may_gather: true,
            reset_key: [seed; 32],
            seed: [seed; 32],
        };
        adjust(&mut settings);
        Self {
            identity,
            endpoint: QuicEndpoint::new(settings).unwrap(),
            connections: BTreeMap::new(),
            addr: addr.parse().unwrap(),
            verdict: Some(Verdict::Accepted),
            events: Vec::new(),
            sent: Vec::new(),
        }
    }

    pub(super) fn connection(&mut self, handle: QuicHandle) -> &mut QuicConnection {
        self.connections.get_mut(&handle.0).unwrap()
    }

    fn handle(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let source = UdpSource { socket: 0, addr: from };
        match self.endpoint.handle_datagram(now, source, None, BytesMut::from(bytes), Some(PATH)) {
            Routed::Connection(handle, input) => {
                if let Some(connection) = self.connections.get_mut(&handle.0) {
                    connection.handle_input(now, input);
                }
                None
            }
            Routed::New(handle, connection) => {
                self.connections.insert(handle.0, connection);
                None
            }
            Routed::Answer(answer) => Some(answer),
            Routed::Nothing => None,
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.connections.values_mut().filter_map(|connection| connection.poll_timeout()).min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        for connection in self.connections.values_mut() {
            if connection.poll_timeout().is_some_and(|due| due <= now) {
                connection.handle_timeout(now);
            }
        }
    }

    fn drain(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        for number in self.connections.keys().copied().collect::<Vec<_>>() {
            self.drain_one(now, QuicHandle(number), &mut datagrams);
        }
        datagrams
    }

    fn drain_one(&mut self, now: Instant, handle: QuicHandle, datagrams: &mut Vec<Vec<u8>>) {
        let mut buffer = Vec::new();
        loop {
            let connection = self.connections.get_mut(&handle.0).unwrap();
            let mut moved = false;
            while let Some(event) = connection.poll_event(now) {
                moved = true;
                match &event {
                    QuicEvent::Connected { .. } => {
                        connection.grow_window(self.endpoint.lend_first_window(handle));
                    }
                    QuicEvent::WindowWanted(bytes) => {
                        connection.grow_window(self.endpoint.lend_window(handle, *bytes));
                    }
                    QuicEvent::Preface { stream, .. } => {
                        if let Some(verdict) = self.verdict {
                            connection.answer(now, *stream, verdict);
                            self.endpoint.admitted(handle);
                        }
                    }
                    _ => {}
                }
                self.events.push(event);
            }
            while let Some(event) = connection.poll_endpoint_event() {
                moved = true;
                let gone = event.is_drained();
                if let Some(input) = self.endpoint.handle_event(handle, event) {
                    connection.handle_input(now, input);
                }
                if gone {
                    self.connections.remove(&handle.0);
                    return;
                }
            }
            while let Some(outgoing) = connection.poll_transmit(now, 10, &mut buffer) {
                moved = true;
                let segment = outgoing.segment_bytes.unwrap_or(outgoing.bytes);
                for datagram in buffer[..outgoing.bytes].chunks(segment) {
                    self.sent.push((now, datagram.len()));
                    datagrams.push(datagram.to_vec());
                }
            }
            if !moved {
                return;
            }
        }
    }
}

pub(super) fn preface() -> Preface {
    Preface {
        purpose: Purpose::Direct,
        label: ProtocolLabel::default(),
        token: None,
        network: NetworkName::default(),
        stays: false,
    }
}

/// What the interfaces of both would carry.
const PATH: PathMtu = PathMtu { largest: 9_000, is_known: false };
pub(super) const MS: Duration = Duration::from_millis(1);
