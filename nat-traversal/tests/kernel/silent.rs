//! What an address and port get that never answer, since only the peer says that it is there.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nat_lab::{Lab, Link, Site, Topology, parse_nats};
use nat_traversal::{
    MappedSocketAddr, MappedUdpSocket, MappingConfig, MappingContext, PortRule, PunchedUdpSocket,
    gen_rendezvous_info,
};

/// Prints the row; whether it is as asked.
pub(crate) fn measure() -> bool {
    let site = Site::new(parse_nats("easy").unwrap());
    let lab = Topology::new().site(site).links(Link::delay(Duration::from_millis(20))).build().unwrap();
    let victim = SocketAddr::from((Lab::SERVER[0], 4_000));
    let silent = lab.node("server").enter(|| UdpSocket::bind(victim).unwrap());
    lab.node("a1").enter(|| {
        let context = MappingContext::new(MappingConfig::new().port_map(false)).unwrap();
        let mapped = MappedUdpSocket::new(&context).unwrap();
        // As a NAT with random ports would name it, so that there is something to spray.
        let lie = (0..16).map(|_| MappedSocketAddr::reflexive(victim, PortRule::Random)).collect();
        let (_, theirs) = gen_rendezvous_info(lie);
        let (ours, _) = gen_rendezvous_info(mapped.endpoints);
        let deadline = Instant::now() + PUNCH;
        let punched = PunchedUdpSocket::punch_hole(mapped.socket, ours, &theirs, &context, deadline);
        assert!(punched.is_err(), "somebody answered");
    });
    silent.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sizes = Vec::new();
    let mut buffer = [0; 2_048];
    while let Ok((bytes, _)) = silent.recv_from(&mut buffer) {
        sizes.push(bytes);
    }
    let (packets, bytes) = (sizes.len(), sizes.iter().sum::<usize>());
    let held = (1..=5).contains(&packets) && bytes <= 1_200;
    println!(
        "{:<46}{packets} packets, {bytes} bytes   asked: ≤ 5, ≤ 1,200  {}",
        "to an address and port that never answer",
        if held { "ok" } else { "!! missed" },
    );
    held
}

/// Longer than all checks of an address take.
const PUNCH: Duration = Duration::from_secs(4);
