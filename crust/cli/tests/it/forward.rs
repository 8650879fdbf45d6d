use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::support::{Home, Running, SCHEMES, bytes};

/// A service that reads to the end, then sends everything back, reversed.
fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            thread::spawn(move || {
                let mut all = Vec::new();
                socket.read_to_end(&mut all).unwrap();
                all.reverse();
                socket.write_all(&all).unwrap();
            });
        }
    });
    addr
}

fn forwarded(home: &Home, scheme: &str, to: SocketAddr) -> (Running, Running, SocketAddr) {
    let (there, contact) = home.serve(scheme, &["forward", "--to", &to.to_string()]);
    let mut here = home.start(&["forward", "127.0.0.1:0", &contact]);
    let addr = here.event("listening")["endpoints"][0].as_str().unwrap().parse().unwrap();
    (there, here, addr)
}

fn open(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket
}

#[test]
fn several_connections_at_once_each_with_its_half_close() {
    for scheme in SCHEMES {
        let home = Home::new();
        let (there, here, addr) = forwarded(&home, scheme, service());
        thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    let mut content = bytes(200_000 + number);
                    let mut socket = open(addr);
                    socket.write_all(&content).unwrap();
                    socket.shutdown(Shutdown::Write).unwrap();
                    let mut answer = Vec::new();
                    socket.read_to_end(&mut answer).unwrap();
                    content.reverse();
                    assert!(answer == content, "{scheme}: connection {number}");
                });
            }
        });
        for running in [here, there] {
            running.interrupt();
            running.wait().assert_done();
        }
    }
}

#[test]
fn a_connection_that_breaks_on_one_side_breaks_on_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::new();
    let (_there, _here, addr) = forwarded(&home, "tcp", listener.local_addr().unwrap());
    let mut socket = open(addr);
    socket.write_all(b"something that the service does not read").unwrap();
    let (service, _) = listener.accept().unwrap();
    // Closing with bytes unread is a reset.
    service.peek(&mut [0]).unwrap();
    drop(service);
    let error = socket.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_service_that_is_down_breaks_the_connection_and_not_the_command() {
    let home = Home::new();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (mut there, mut here, addr) = forwarded(&home, "tcp", gone);
    for _ in 0..2 {
        let error = open(addr).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let reason = there.event("closed")["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("cannot reach the service"), "{reason}");
        assert!(here.event("closed")["reason"].is_string());
    }
}

#[test]
fn without_the_token_no_connection_gets_through() {
    let home = Home::new();
    let mut there = home.start(&["forward", "--to", "127.0.0.1:1", "--listen", "tcp://127.0.0.1:0"]);
    let listening = there.event("listening");
    let endpoint = listening["endpoints"][0].as_str().unwrap();
    let mut here = home.start(&["forward", "127.0.0.1:0", endpoint]);
    let addr = here.event("listening")["endpoints"][0].as_str().unwrap().parse().unwrap();
    assert!(open(addr).read(&mut [0]).is_err());
    let failed = here.event("failed");
    assert!(failed["attempts"][0]["reason"].as_str().unwrap().contains("token"), "{failed}");
}

#[test]
fn a_port_in_use_is_an_error() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (_there, contact) = home.serve("tcp", &["forward", "--to", "127.0.0.1:1"]);
    let message = home.run(&["forward", &addr, &contact]).assert_failed(1, "listen");
    assert!(message.contains(&addr), "{message}");
    let place = format!("tcp://{addr}");
    let message = home.run(&["listen", "--listen", &place]).assert_failed(1, "listen");
    assert!(message.contains(&addr), "{message}");
}
