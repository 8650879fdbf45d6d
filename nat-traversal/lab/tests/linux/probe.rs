//! What a NAT does, by packets to sockets of the server (RFC 4787).

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use nat_lab::Lab;

use super::PATIENCE;

/// A host and a server that it can ask.
pub(crate) struct Probe<'a> {
    lab: &'a Lab,
    host: &'a str,
    /// At both addresses and, at the first, at two ports.
    servers: [UdpSocket; 4],
}

impl<'a> Probe<'a> {
    pub(crate) fn new(lab: &'a Lab, host: &'a str) -> Self {
        let [first, second] = Lab::SERVER;
        let servers = lab.node("server").enter(|| {
            [(first, 1_000), (first, 1_001), (second, 1_000), (second, 1_001)].map(|address| {
                let socket = UdpSocket::bind(address).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            })
        });
        Self { lab, host, servers }
    }

    pub(crate) fn summary(&self) -> String {
        let (mapping, ports) = self.mapping();
        [mapping, self.filtering(), ports, self.tcp_mapping(), self.strangers_connection()].join(" ")
    }

    fn socket(&self) -> UdpSocket {
        let socket = self.lab.node(self.host).enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn mapping(&self) -> (&'static str, &'static str) {
        let socket = self.socket();
        let seen = [0, 1, 2].map(|server| see(&socket, &self.servers[server]).port());
        let inside = socket.local_addr().unwrap().port();
        let ports = match seen {
            [first, ..] if first == inside => "preserved",
            [first, second, third] if second == first + 1 && third == second + 1 => "sequential",
            _ => "changed",
        };
        (rule(seen), ports)
    }

    fn filtering(&self) -> &'static str {
        let socket = self.socket();
        let outside = see(&socket, &self.servers[0]);
        let arrives = |server: usize| {
            self.servers[server].send_to(b"knock", outside).unwrap();
            socket.recv(&mut [0; 8]).is_ok()
        };
        match (arrives(3), arrives(1)) {
            (true, _) => "ei",
            (false, true) => "ad",
            (false, false) => "apd",
        }
    }

    fn tcp_mapping(&self) -> &'static str {
        let [first, second] = Lab::SERVER;
        let mut local = SocketAddr::from(([0, 0, 0, 0], 0));
        let seen = [(first, 2_000), (first, 2_001), (second, 2_000)].map(|server| {
            let listener = self.lab.node("server").enter(|| TcpListener::bind(server).unwrap());
            let stream = self.lab.node(self.host).enter(|| connect(local, server.into()).unwrap());
            local.set_port(stream.local_addr().unwrap().port());
            listener.accept().unwrap().1.port()
        });
        rule(seen)
    }

    /// To a port that is mapped, from an address with which it has not spoken.
    fn strangers_connection(&self) -> &'static str {
        let node = self.lab.node(self.host);
        let server = SocketAddr::from((Lab::SERVER[0], 2_002));
        let listener = self.lab.node("server").enter(|| TcpListener::bind(server).unwrap());
        let stream = node.enter(|| connect(([0, 0, 0, 0], 0).into(), server).unwrap());
        let outside = listener.accept().unwrap().1;
        let inside = node.enter(|| listen(stream.local_addr().unwrap().port()));
        let stranger = SocketAddr::from((Lab::SERVER[1], 0));
        let knock = self.lab.node("server").enter(|| connect(stranger, outside));
        drop(inside);
        match knock {
            Ok(_) => "accepted",
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "refused",
            Err(_) => "dropped",
        }
    }
}

/// Whether a datagram of a host is sent back by the server.
pub(crate) fn is_echoed(lab: &Lab, host: &str) -> bool {
    let probe = Probe::new(lab, host);
    let socket = probe.socket();
    socket.send_to(b"echo", probe.servers[0].local_addr().unwrap()).unwrap();
    probe.servers[0].recv(&mut [0; 8]).is_ok()
}

/// Whether datagrams pass between the outside addresses of two hosts once both have sent one.
pub(crate) fn punches(lab: &Lab, a: &str, b: &str) -> bool {
    let probes = Probe::new(lab, a);
    let other =
        Probe { lab, host: b, servers: probes.servers.each_ref().map(|socket| socket.try_clone().unwrap()) };
    let (a, b) = (probes.socket(), other.socket());
    let (outside_a, outside_b) = (see(&a, &probes.servers[0]), see(&b, &probes.servers[0]));
    let meet = |socket: &UdpSocket, peer: SocketAddr| {
        // The first may be too early for the other's NAT.
        let met = (0..3).any(|_| {
            socket.send_to(b"punch", peer).unwrap();
            socket.recv(&mut [0; 8]).is_ok()
        });
        socket.send_to(b"punch", peer).unwrap();
        met
    };
    thread::scope(|scope| {
        let there = scope.spawn(|| meet(&b, outside_a));
        let here = meet(&a, outside_b);
        there.join().unwrap() && here
    })
}

/// Sends to a server; returns which address it sees.
fn see(socket: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    socket.send_to(b"who", server.local_addr().unwrap()).unwrap();
    server.recv_from(&mut [0; 8]).unwrap().1
}

fn rule([first, second, third]: [u16; 3]) -> &'static str {
    match (first == second, first == third) {
        (true, true) => "ei",
        (true, false) => "ad",
        (false, _) => "apd",
    }
}

/// The standard library cannot bind a socket before it connects.
fn connect(local: SocketAddr, remote: SocketAddr) -> std::io::Result<TcpStream> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&local.into())?;
    socket.connect_timeout(&remote.into(), PATIENCE)?;
    Ok(socket.into())
}

fn listen(port: u16) -> TcpListener {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into()).unwrap();
    socket.listen(8).unwrap();
    socket.into()
}
