//! Any history to the whole machine.
//!
//! The input is read as a list of steps: a byte says what happens, what follows are its arguments.
#![no_main]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use beacon::GroupSecret;
use beacon::protocol::{Discovery, DiscoveryConfig, Link, LinkId, MAX_PACKET_BYTES, Network, Seed, sealed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let mut now = Instant::now();
    let id_bytes = usize::from(byte(&mut input) % 64);
    // Every other machine has a group, and what it hears comes from a member who says anything.
    let secret = (id_bytes > 32).then(|| GroupSecret::new([1; 32]));
    let is_private = secret.is_some();
    let config = DiscoveryConfig { id_bytes: id_bytes % 33, secret, ..DiscoveryConfig::default() };
    let mut machine = Discovery::new(config, Seed::new([7; 32]), b"data").expect("it fits");
    machine.set_clock(now, Duration::from_secs(1_700_000_000));
    machine.set_links(now, vec![link(1), link(2)]);
    while !input.is_empty() {
        match byte(&mut input) % 10 {
            0 => now += Duration::from_millis(u64::from(byte(&mut input)) * 40),
            1 => now += Duration::from_secs(u64::from(byte(&mut input)) * 40),
            2 => machine.set_period(now, Duration::from_millis(u64::from(byte(&mut input)) * 100)),
            3 => {
                let length = usize::from(byte(&mut input)) * 5;
                let _ = machine.set_data(now, &vec![1; length]);
            }
            4 => {
                let links = byte(&mut input);
                let links = (0..8).filter(|bit| links & 1 << bit != 0).map(link).collect();
                machine.set_links(now, links);
            }
            5 => machine.hide(),
            6 => machine.search(now),
            _ => {
                let (on, host) = (byte(&mut input), byte(&mut input));
                let length = usize::from(byte(&mut input)).min(input.len());
                let (datagram, rest) = input.split_at(length);
                input = rest;
                // Most inputs would die at the first bytes otherwise.
                let datagram = if is_private {
                    sealed(GroupSecret::new([1; 32]), &envelope(host, datagram))
                } else {
                    [b"bcn\x01", datagram].concat()
                };
                let source = SocketAddr::from(([10, 0, 0, host], u16::from(host) + 1));
                machine.handle_datagram(now, LinkId(u32::from(on % 8)), source, &datagram);
            }
        }
        machine.handle_timeout(now);
        check(&mut machine, now);
    }
});

/// Half of the envelopes come from where they say, and are recent.
fn envelope(host: u8, bytes: &[u8]) -> Vec<u8> {
    match bytes.split_first() {
        Some((first, rest)) if first % 2 == 0 => {
            let head = [&1_700_000_000_000_u64.to_be_bytes()[..], &[3; 8], &[0, 1, 4, 10, 0, 0, host]];
            [&head.concat()[..], b"bcn\x01", rest].concat()
        }
        _ => bytes.to_vec(),
    }
}

/// Everything that is due has been done, and it was not much.
fn check(machine: &mut Discovery, now: Instant) {
    let transmits: Vec<_> = std::iter::from_fn(|| machine.poll_transmit()).collect();
    assert!(transmits.len() <= 64, "{} datagrams at once", transmits.len());
    assert!(transmits.iter().all(|transmit| transmit.contents.len() <= MAX_PACKET_BYTES));
    while machine.poll_event().is_some() {}
    assert!(machine.poll_timeout().is_none_or(|due| due > now), "a timer is still due");
}

fn link(number: u8) -> Link {
    let network = Network { address: [10, 0, 0, 200].into(), prefix_bits: 24 };
    Link {
        id: LinkId(u32::from(number)),
        name: format!("net{number}"),
        networks: vec![network],
        datagrams_per_round: usize::from(number % 4),
    }
}

fn byte(input: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = input.split_first() else { return 0 };
    *input = rest;
    first
}
