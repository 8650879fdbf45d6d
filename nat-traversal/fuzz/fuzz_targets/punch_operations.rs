//! Two punchers and a network between them that does as the input says: delivers, loses, repeats, redirects and changes
//! packets in any order, and lets time pass. Nobody panics, nobody believes in a hole to where the peer never was, and what
//! is sent stays within its bounds.
#![no_main]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nat_traversal::protocol::{
    Datagram, Machine as _, PunchEvent, PunchKeys, Seed, SocketIndex, Transmit, UdpPuncher,
};
use nat_traversal::{MappedSocketAddr, PortRule, PunchOptions};

fuzz_target!(|bytes: &[u8]| {
    let mut input = bytes.iter().copied();
    let Some(kinds) = input.next() else { return };
    let mut now = nat_traversal::testing::epoch();
    let rule = |bits: u8| match bits & 3 {
        0 => PortRule::Stable,
        1 => PortRule::Sequential(1),
        2 => PortRule::Random,
        _ => PortRule::Unknown,
    };
    let outside: [SocketAddr; 2] =
        ["198.51.100.2:40000", "192.0.2.2:41000"].map(|at| at.parse().expect("ok"));
    let inside: [SocketAddr; 2] =
        ["192.168.1.11:4000", "192.168.2.11:4000"].map(|at| at.parse().expect("ok"));
    let addresses = [0, 1].map(|side| {
        let seen = MappedSocketAddr::reflexive(outside[side], rule(kinds >> (2 * side)));
        [MappedSocketAddr::host(inside[side]), seen]
    });
    let key = |ours: &[u8], theirs: &[u8]| PunchKeys::derive(b"secret", ours, theirs).expect("they differ");
    let options = PunchOptions::new().spray_unvouched(kinds & 16 == 0);
    let mut punchers = [
        UdpPuncher::new(now, &addresses[0], &addresses[1], key(b"a", b"b"), Seed::from(1)).options(&options),
        UdpPuncher::new(now, &addresses[1], &addresses[0], key(b"b", b"a"), Seed::from(2)).options(&options),
    ];
    let mut sent: [Vec<Transmit>; 2] = Default::default();
    // Where each side's packets have come from, as the network showed them to the other.
    let mut shown: [BTreeSet<SocketAddr>; 2] = Default::default();
    while let (Some(operation), Some(argument)) = (input.next(), input.next()) {
        let from = usize::from(operation & 1);
        let to = 1 - from;
        if operation & 128 != 0 {
            punchers[from]
                .vouch(now, [outside[to].ip(), [192, 0, 2, argument].into()][usize::from(argument & 1)]);
        }
        match (operation >> 1) % 4 {
            0 => {
                now += Duration::from_millis(u64::from(argument) * 4);
                punchers[from].handle_timeout(now);
            }
            choice if !sent[from].is_empty() => {
                let index = usize::from(argument) % sent[from].len();
                let mut packet = sent[from][index].clone();
                let mut source = outside[from];
                let mut honest = true;
                match choice {
                    1 => {}
                    2 => {
                        // Through another address of a NAT.
                        source.set_port(source.port().wrapping_add(u16::from(argument)).max(1));
                    }
                    _ => {
                        let at = usize::from(input.next().unwrap_or(0)) % packet.bytes.len();
                        // The FINGERPRINT at the end is a checksum without a key (RFC 8489, section 14.7): whoever changes only that
                        // passes a true packet on, and may.
                        honest = at >= packet.bytes.len() - FINGERPRINT_BYTES;
                        packet.bytes[at] ^= argument | 1;
                        source = "203.0.113.66:666".parse().expect("an address");
                    }
                }
                if honest {
                    shown[from].insert(source);
                }
                let socket = SocketIndex(u16::from(input.next().unwrap_or(0)) % 4);
                punchers[to].handle_datagram(now, Datagram { socket, source, bytes: &packet.bytes });
            }
            _ => {}
        }
        for side in 0..2 {
            while let Some(packet) = punchers[side].poll_transmit() {
                assert!(packet.bytes.len() <= 1_200, "a check is small");
                sent[side].push(packet);
            }
            assert!(sent[side].len() <= 8_192, "{} packets", sent[side].len());
            while let Some(event) = punchers[side].poll_event() {
                if let PunchEvent::Punched { peer, .. } = event {
                    assert!(shown[1 - side].contains(&peer), "a hole to {peer}, where the peer never was");
                }
            }
        }
    }
});

const FINGERPRINT_BYTES: usize = 8;
