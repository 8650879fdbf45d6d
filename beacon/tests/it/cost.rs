//! What a beacon costs, by the processor time of its one thread. The bounds are several times what is wanted, as tests
//! run unoptimised; the figures are printed.
#![cfg(target_os = "linux")]

use std::net::UdpSocket;
use std::time::Duration;

use beacon::protocol::{Kind, Packet};

use crate::agent::{Agent, Settings};

#[test]
fn an_idle_beacon_with_a_peer_takes_little_time_a_period() {
    let settings = |name: &str, port| Settings {
        port,
        period: Duration::from_millis(50),
        is_local: true,
        ..Settings::new(name)
    };
    let mut watched = Agent::start(&[], &settings("watched", 0));
    let mut other = Agent::start(&[], &settings("other", watched.port()));
    watched.wait_for("appeared other ");
    other.wait_for("appeared watched ");
    let repetitions = 40;

    let mut skip = watched.request("cpu");
    let before = nanoseconds(&watched.wait_after(skip, "cpu ").1);
    for _ in 0..repetitions {
        skip = watched.line_after(skip, "repeated other ") + 1;
    }
    let after = nanoseconds(&watched.ask("cpu "));

    let period = Duration::from_nanos((after - before) / repetitions);
    println!("an idle beacon takes {period:?} a period");
    assert!(period <= Duration::from_millis(5), "{period:?} a period");
}

#[test]
fn garbage_and_forged_beacons_cost_little_and_peers_are_found_among_them() {
    let local = |name: &str, port| Settings { port, is_local: true, ..Settings::new(name) };
    let mut watched = Agent::start(&[], &local("watched", 0));
    let vandals: Vec<_> = (0..50).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port")).collect();
    let before = nanoseconds(&watched.ask("cpu "));
    let rounds = 200_u32;
    let mut read = 0;

    for round in 0..rounds {
        for (number, vandal) in (0_u32..).zip(&vandals) {
            let (garbage, forged) = (vec![b'b'; 100], forged(round * 1000 + number));
            let datagram = if number % 2 == 0 { &garbage } else { &forged };
            vandal.send_to(datagram, ("127.0.0.1", watched.port())).expect("loopback takes it");
        }
        // So that few are dropped by the system before the beacon sees them; those that are do not come later.
        for _ in 0..1000 {
            read = received(&watched.ask("stats "));
            if read >= u64::from(round) * 50 {
                break;
            }
        }
    }

    let after = nanoseconds(&watched.ask("cpu "));
    let each = Duration::from_nanos((after - before) / read);
    println!("a garbage or forged datagram takes {each:?}, of {read} read");
    assert!(read > 5_000, "only {read} of 10,000 datagrams were read");
    assert!(each <= Duration::from_micros(250), "{each:?} a datagram");
    let _other = Agent::start(&[], &local("other", watched.port()));
    watched.wait_for("appeared other ");
}

fn received(stats: &str) -> u64 {
    let (_, rest) = stats.split_once("datagrams_received: ").expect("it is among the numbers");
    rest.split(',').next().and_then(|number| number.parse().ok()).expect("a number follows")
}

fn forged(number: u32) -> Vec<u8> {
    let id = number.to_be_bytes();
    let packet = Packet {
        kind: Kind::Ask,
        sequence: 1,
        interval: Duration::from_secs(1),
        id: &id,
        data: b"forged",
        known: &[],
    };
    packet.encode().expect("it is small")
}

fn nanoseconds(line: &str) -> u64 {
    line.trim_start_matches("cpu ").parse().expect("a number follows")
}
