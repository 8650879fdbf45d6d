use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use nat_traversal::HolePunchServer;
use nat_traversal::protocol::stun::{Class, Message, MessageBuilder, Method, TransactionId, attribute};

#[test]
fn it_answers_over_udp_and_tcp_at_the_same_port() {
    let server = HolePunchServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = server.addresses()[0].addr;

    let udp = patient_udp();
    udp.send_to(&request(None), address).unwrap();
    let (answer, _) = receive(&udp);
    assert_eq!(Message::decode(&answer).unwrap().mapped_address(), udp.local_addr().ok());

    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    // Two requests in pieces: the stream has no borders.
    let two = [request(None), request(None)].concat();
    for piece in two.chunks(7) {
        tcp.write_all(piece).unwrap();
    }
    for _ in 0..2 {
        let mut header = [0; 20];
        tcp.read_exact(&mut header).unwrap();
        let length = Message::length_in_stream(&header).unwrap().unwrap();
        let mut answer = header.to_vec();
        answer.resize(length, 0);
        tcp.read_exact(&mut answer[20..]).unwrap();
        assert_eq!(Message::decode(&answer).unwrap().mapped_address(), tcp.local_addr().ok());
    }
}

#[test]
fn with_two_addresses_it_answers_from_the_other_one_when_asked() {
    let server = two_addresses();
    let [first, second] = [0, 1].map(|index| server.addresses()[index].addr);
    let udp = patient_udp();
    for (flags, from) in [
        (2_u32, SocketAddr::new(first.ip(), second.port())),
        (4, SocketAddr::new(second.ip(), first.port())),
        (6, second),
    ] {
        udp.send_to(&request(Some(flags)), first).unwrap();
        let (answer, source) = receive(&udp);
        assert_eq!(source, from);
        assert_eq!(Message::decode(&answer).unwrap().other_address(), Some(second));
    }
}

#[test]
fn a_pair_answers_at_two_neighbouring_ports() {
    let server = HolePunchServer::bind_pair("127.0.0.1:0".parse().unwrap()).unwrap();
    let [first, second] = [0, 1].map(|index| server.addresses()[index].addr);
    assert_eq!(second, SocketAddr::new(first.ip(), first.port() + 1));
    let udp = patient_udp();
    for address in [first, second] {
        udp.send_to(&request(None), address).unwrap();
        let (answer, source) = receive(&udp);
        assert_eq!(source, address);
        assert_eq!(Message::decode(&answer).unwrap().mapped_address(), udp.local_addr().ok());
    }
    assert!(HolePunchServer::bind_pair(first).is_err(), "both ports are taken");
    assert!(HolePunchServer::bind_pair("127.0.0.1:65535".parse().unwrap()).is_err(), "there is no next port");
}

#[test]
fn noise_and_half_requests_are_survived() {
    let server = HolePunchServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = server.addresses()[0].addr;
    let mut idle = Vec::new();
    for noise in [&b"GET / HTTP/1.1\r\n\r\n0000000000000000"[..], &[0; 40], &request(None)[..30]] {
        let mut tcp = TcpStream::connect(address).unwrap();
        tcp.write_all(noise).unwrap();
        idle.push(tcp);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(noise, address).unwrap();
    }
    let udp = patient_udp();
    udp.send_to(&request(None), address).unwrap();
    let (answer, _) = receive(&udp);
    assert_eq!(Message::decode(&answer).unwrap().class(), Class::Success);
}

#[test]
fn dropping_it_frees_its_port() {
    // An address that no other test's sockets are given a port of.
    let server = HolePunchServer::bind("127.0.0.77:0".parse().unwrap()).unwrap();
    let address = server.addresses()[0].addr;
    drop(server);
    HolePunchServer::bind(address).unwrap();
}

#[test]
fn two_addresses_that_do_not_differ_in_both_parts_are_refused() {
    for (first, second) in
        [("127.0.0.1:5", "127.0.0.1:6"), ("127.0.0.1:5", "127.0.0.2:5"), ("127.0.0.1:0", "127.0.0.2:1")]
    {
        assert!(HolePunchServer::bind_two(first.parse().unwrap(), second.parse().unwrap()).is_err());
    }
}

/// A server at two loopback addresses; ports are tried until both are free at both.
fn two_addresses() -> HolePunchServer {
    let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let attempt = |_| {
        let first = SocketAddr::from((Ipv4Addr::LOCALHOST, free()));
        HolePunchServer::bind_two(first, SocketAddr::from(([127, 0, 0, 2], free()))).ok()
    };
    (0..50).find_map(attempt).expect("free ports")
}

fn request(change: Option<u32>) -> Vec<u8> {
    let mut builder = MessageBuilder::new(Class::Request, Method::BINDING, TransactionId([7; 12]));
    if let Some(flags) = change {
        builder = builder.attribute(attribute::CHANGE_REQUEST, &flags.to_be_bytes());
    }
    builder.attribute(attribute::SOFTWARE, &[b' '; 64]).fingerprint()
}

fn patient_udp() -> UdpSocket {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    udp
}

fn receive(udp: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, source) = udp.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), source)
}

/// Far beyond what loopback takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);
