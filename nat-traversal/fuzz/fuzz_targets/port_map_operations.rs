//! A mapper, its router, and what can go wrong between them and with UPnP, in any order. Nobody panics, a mapper that has
//! been released comes to its end, and it does not send without measure.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nat_traversal::protocol::port_map::{
    PortMapEvent, PortMapRequest, PortMapper, PortProtocol, UpnpAnswer, UpnpTask,
};
use nat_traversal::protocol::{Datagram, Machine as _, Seed, SocketIndex};
use nat_traversal::testing::Router;

fuzz_target!(|bytes: &[u8]| {
    let mut input = bytes.iter().copied();
    let mut now = nat_traversal::testing::epoch();
    let local: SocketAddr = "192.168.1.11:4000".parse().expect("an address");
    let server: SocketAddr = "192.168.1.1:5351".parse().expect("an address");
    let external: SocketAddr = "198.51.100.2:4000".parse().expect("an address");
    let request = PortMapRequest { protocol: PortProtocol::Udp, local, lifetime: Duration::from_secs(120) };
    let mut mapper = PortMapper::new(now, Some(server.ip()), 0, request, None, Seed::from(1));
    let mut router = Router::new(now, external.ip());
    let (mut tasks, mut answers) = (Vec::new(), Vec::new());
    let (mut released, mut ended, mut sent) = (false, false, 0_u64);
    let begun = now;
    let mut steps = 0_u64;
    while let (Some(operation), Some(argument)) = (input.next(), input.next()) {
        steps += 1;
        match operation % 8 {
            0 => now += Duration::from_millis(u64::from(argument) * 8),
            1 => now = mapper.poll_timeout().unwrap_or(now).max(now),
            2 => (router.speaks_pcp, router.speaks_nat_pmp) = (argument & 1 > 0, argument & 2 > 0),
            3 => router.refuses = (argument & 1 > 0).then_some(argument >> 1),
            4 => router.restart(now, argument & 1 > 0),
            5 => {
                if let Some(task) = tasks.pop() {
                    let answer = match (task, argument % 3) {
                        (UpnpTask::Search, 0) => UpnpAnswer::NotFound("nobody".into()),
                        (UpnpTask::Search, _) => UpnpAnswer::Found(server.ip()),
                        (UpnpTask::Add { .. }, 0) => UpnpAnswer::Refused("no".into()),
                        (UpnpTask::Add { external_port, lifetime }, 1) => {
                            let external = SocketAddr::new(external.ip(), external_port);
                            UpnpAnswer::Added { external, lifetime: Some(lifetime) }
                        }
                        (UpnpTask::Add { .. }, _) => UpnpAnswer::Added { external, lifetime: None },
                        (UpnpTask::Remove { .. }, _) => UpnpAnswer::Removed,
                    };
                    mapper.handle_upnp(now, answer);
                }
            }
            6 => {
                // What the router said before, changed or not, on either socket.
                let length = answers.len().max(1);
                if let Some::<&Vec<u8>>(answer) = answers.get(usize::from(argument) % length) {
                    let mut bytes = answer.clone();
                    let at = usize::from(input.next().unwrap_or(0)) % bytes.len();
                    bytes[at] ^= input.next().unwrap_or(0);
                    let socket = SocketIndex(u16::from(argument & 1));
                    mapper.handle_datagram(now, Datagram { socket, source: server, bytes: &bytes });
                }
            }
            _ if argument > 200 => {
                released = true;
                mapper.release(now);
            }
            _ => {}
        }
        mapper.handle_timeout(now);
        while let Some(transmit) = mapper.poll_transmit() {
            sent += 1;
            let datagram = Datagram { socket: SocketIndex::MAIN, source: local, bytes: &transmit.bytes };
            if argument % 5 > 0 {
                router.handle_datagram(now, datagram);
            }
            while let Some(answer) = router.poll_transmit() {
                let socket = SocketIndex(u16::from(answer.destination.ip().is_multicast()));
                mapper.handle_datagram(now, Datagram { socket, source: server, bytes: &answer.bytes });
                answers.push(answer.bytes);
            }
        }
        while let Some(event) = mapper.poll_event() {
            assert!(!ended, "nothing follows the end");
            match event {
                PortMapEvent::Upnp(task) => tasks.push(task),
                PortMapEvent::Failed(_) | PortMapEvent::Closed => ended = true,
                PortMapEvent::Mapped(_) | PortMapEvent::Lost(_) => {}
            }
        }
    }
    let seconds = now.duration_since(begun).as_secs();
    assert!(sent <= 16 + 8 * steps + 8 * seconds, "{sent} in {seconds} s");
    if released && !ended {
        for _ in 0..64 {
            now = mapper.poll_timeout().unwrap_or(now).max(now);
            mapper.handle_timeout(now);
            while let Some(event) = mapper.poll_event() {
                match event {
                    PortMapEvent::Upnp(_) => mapper.handle_upnp(now, UpnpAnswer::Removed),
                    PortMapEvent::Failed(_) | PortMapEvent::Closed => ended = true,
                    _ => {}
                }
            }
            if tasks.pop().is_some() {
                mapper.handle_upnp(now, UpnpAnswer::Removed);
            }
        }
        assert!(ended, "a mapper that was released comes to its end");
    }
});
