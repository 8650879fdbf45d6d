//! What the fuzz targets see of the protocol code; not part of the library as it is built otherwise.

use std::{cell::RefCell, net::SocketAddr, sync::Arc, time::Duration};

use nat_traversal::protocol::Seed;

use crate::{
    Identity,
    io::clock,
    protocol::{
        handshake::{Handshake, HandshakeEvent},
        offer::Offer,
        paths::{Awaited, CheckKeys, Paths, UdpSource, Way},
        preface::{Preface, Purpose},
        raw_key::TlsConfigs,
        tls::{MAX_RECORD_BYTES, TlsCore},
        verdict::Verdict,
    },
};

/// Any bytes as a preface; what can be read can be written, and reads the same.
pub fn preface(bytes: &[u8]) {
    if let Ok(Some((preface, used))) = Preface::decode(bytes) {
        assert!(used <= bytes.len());
        let encoded = preface.encode();
        assert_eq!(Preface::decode(&encoded), Ok(Some((preface, encoded.len()))));
    }
}

/// Any operations on both ends of a QUIC connection; see there.
pub fn quic_operations(bytes: &[u8]) {
    let _ = crate::protocol::quic::operations::operations(bytes);
}

/// Any bytes as a verdict.
pub fn verdict(bytes: &[u8]) {
    if let Ok(Some((verdict, used))) = Verdict::decode(bytes) {
        assert!(used <= bytes.len());
        let _ = verdict.encode();
    }
}

/// Any bytes as the offer of a rendezvous; what can be read can be written, and means the same.
pub fn offer(bytes: &[u8]) {
    if let Ok(offer) = Offer::decode(bytes) {
        assert_eq!(Offer::decode(&offer.encode()), Ok(offer));
    }
}

/// Datagrams and path checks of anybody, at any time and from anywhere, for a connection: nothing panics, nothing moves, since
/// nobody has its keys, and nobody gets more than three times what it sent.
pub fn path_checks(bytes: &[u8]) {
    let Some((head, mut rest)) = bytes.split_first() else { return };
    let first = way(0);
    let mut paths = Paths::new(first, head & 1 == 0, Seed::from(u64::from(*head)));
    paths.connected(CheckKeys::new(&[7; CheckKeys::BYTES], head & 1 == 1));
    let mut now = clock::now();
    let awaited =
        Awaited { is_owed: true, has_stalled: head & 2 == 2, round_trip: Duration::from_millis(40) };
    let mut balance = [0_usize; 256];
    while let [operation, from, length, tail @ ..] = rest {
        let (datagram, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        now += Duration::from_millis(u64::from(*operation));
        balance[usize::from(*from)] += 3 * datagram.len();
        match operation & 3 {
            0 => paths.handle_datagram(now, way(*from), datagram.len()),
            1 => drop(paths.handle_check(now, way(*from), datagram)),
            2 => paths.sent(now),
            _ => paths.handle_timeout(now, awaited),
        }
        while let Some((to, message)) = paths.poll_transmit() {
            if to != first {
                let index = usize::from(to.source.addr.port() - 1);
                balance[index] = balance[index].checked_sub(message.len()).expect("no more than three times");
            }
        }
        assert_eq!(paths.active(), first);
        assert!(paths.poll_move().is_none());
    }
}

fn way(from: u8) -> Way {
    let addr = SocketAddr::from(([192, 0, 2, 1], u16::from(from) + 1));
    Way { source: UdpSource { socket: 1, addr }, local: None }
}

/// Two ends shake hands over a wire that the input cuts into pieces and tampers with, then write, read and end as it says. No
/// input makes one of them panic, and what is read is what was written, as far as it came.
pub fn tls_operations(bytes: &[u8]) {
    let mut operations = bytes.iter().copied();
    let Some((mut dialer, mut acceptor)) = shake_hands(&mut operations) else { return };
    let mut ends = [End::new(&mut dialer), End::new(&mut acceptor)];
    let mut record = vec![0; MAX_RECORD_BYTES + 2_048];
    while let (Some(operation), Some(argument)) = (operations.next(), operations.next()) {
        let side = usize::from(operation & 1);
        let other = 1 - side;
        match operation >> 1 & 3 {
            0 => {
                let data = vec![argument; usize::from(argument) * 8];
                if let Ok(length) = ends[side].core.encrypt(&data, &mut record) {
                    ends[side].written.extend_from_slice(&data);
                    ends[other].incoming.extend_from_slice(&record[..length]);
                }
            }
            // After its own end rustls asserts, in debug builds, that nothing bad comes in; so an end that was tampered with
            // does not end, and one that ended is not tampered with.
            1 if !ends[side].tampered => {
                ends[side].ended = true;
                if let Ok(length) = ends[side].core.end(&mut record) {
                    ends[other].incoming.extend_from_slice(&record[..length]);
                }
            }
            2 => ends[side].read(),
            3 if !ends[side].ended => ends[side].tamper(argument),
            _ => {}
        }
        assert!(ends[other].written.starts_with(&ends[side].received), "read what nobody wrote");
    }
}

struct End<'c> {
    core: &'c mut TlsCore,
    incoming: Vec<u8>,
    written: Vec<u8>,
    received: Vec<u8>,
    ended: bool,
    tampered: bool,
}

impl<'c> End<'c> {
    fn new(core: &'c mut TlsCore) -> Self {
        let [incoming, written, received] = [const { Vec::new() }; 3];
        Self { core, incoming, written, received, ended: false, tampered: false }
    }

    fn read(&mut self) {
        while !self.incoming.is_empty() {
            let received = &mut self.received;
            let step = self.core.decrypt(&mut self.incoming, &mut |plain| received.extend_from_slice(plain));
            let Ok(step) = step else { return };
            self.incoming.drain(..step.used);
            if step.used == 0 {
                return;
            }
        }
    }

    fn tamper(&mut self, place: u8) {
        let length = self.incoming.len();
        self.tampered = true;
        if length > 0 {
            self.incoming[usize::from(place) * 7 % length] ^= place | 1;
        }
    }
}

/// The handshake up to the verdict; `None` when the input spoilt it.
fn shake_hands(operations: &mut impl Iterator<Item = u8>) -> Option<(TlsCore, TlsCore)> {
    let (client, server, expected) = CONFIGS.with_borrow(|(dialler, acceptor, expected)| {
        (dialler.client.clone(), Arc::clone(&acceptor.server), *expected)
    });
    let preface = Preface {
        purpose: Purpose::Direct,
        label: crate::ProtocolLabel::default(),
        token: None,
        network: crate::NetworkName::default(),
        stays: false,
    };
    let mut dialer = Handshake::dial(client, expected, preface, false).ok()?;
    let mut acceptor = Handshake::accept(server).ok()?;
    // Half of the inputs leave the handshake alone, so that what comes after it is reached.
    let spoil = operations.next()? & 1 == 1;
    let mut accepted = false;
    for _ in 0..8 {
        carry(&mut dialer, &mut acceptor, spoil, operations)?;
        while let Some(event) = acceptor.poll_event() {
            if let HandshakeEvent::Preface { .. } = event {
                acceptor.answer(Verdict::Accepted);
            }
        }
        carry(&mut acceptor, &mut dialer, spoil, operations)?;
        while let Some(event) = dialer.poll_event() {
            accepted |= event == HandshakeEvent::Verdict(Verdict::Accepted);
        }
        if accepted {
            return Some((dialer.into_established().core, acceptor.into_established().core));
        }
    }
    None
}

fn carry(
    from: &mut Handshake,
    to: &mut Handshake,
    spoil: bool,
    operations: &mut impl Iterator<Item = u8>,
) -> Option<()> {
    while let Some(mut bytes) = from.poll_transmit() {
        let mut piece = bytes.len();
        if spoil {
            piece = usize::from(operations.next()?).max(1) * 4;
            if let Some(place @ 1..) = operations.next()
                && !bytes.is_empty()
            {
                let length = bytes.len();
                bytes[usize::from(place) * 5 % length] ^= place;
            }
        }
        for piece in bytes.chunks(piece) {
            to.handle_bytes(piece).ok()?;
        }
    }
    Some(())
}

thread_local! {
    /// Keys are the same for every input, and making them takes longer than using them.
    static CONFIGS: RefCell<(TlsConfigs, TlsConfigs, crate::PublicKey)> = RefCell::new({
        let acceptor = Identity::from_seed([2; 32]);
        let key = acceptor.public_key();
        (TlsConfigs::new(&Identity::from_seed([1; 32])), TlsConfigs::new(&acceptor), key)
    });
}
