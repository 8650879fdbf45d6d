//! A wire between two peers that can be cut and tampered with.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use socket2::SockRef;

/// Passes the bytes of every connection on, until it is told otherwise.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    wire: Arc<Mutex<Wire>>,
}

#[derive(Default)]
struct Wire {
    sockets: Vec<TcpStream>,
    /// Alters the next byte that goes to the dialer.
    tamper: bool,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// As when a process ends that has nothing left to read.
    Fin,
    /// As when it is killed in the midst of its work.
    Reset,
}

impl Proxy {
    pub(crate) fn new(target: SocketAddr) -> Self {
        Self::with_limit(target, usize::MAX, Cut::Fin)
    }

    /// Cuts each connection once so many bytes of its dialer's have passed.
    pub(crate) fn with_limit(target: SocketAddr, limit: usize, cut: Cut) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let wire = Arc::new(Mutex::new(Wire::default()));
        let seen = wire.clone();
        thread::spawn(move || {
            // Ends with the test binary.
            for near in listener.incoming() {
                let near = near.unwrap();
                let far = TcpStream::connect(target).unwrap();
                for socket in [&near, &far] {
                    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                    socket.set_nodelay(true).unwrap();
                    seen.lock().unwrap().sockets.push(socket.try_clone().unwrap());
                }
                let (up, down) = ((near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near));
                let wire = seen.clone();
                thread::spawn(move || {
                    pump(up.0, up.1, limit, |_| {});
                    if limit != usize::MAX {
                        cut_all(&mut wire.lock().unwrap(), cut);
                    }
                });
                let wire = seen.clone();
                thread::spawn(move || {
                    pump(down.0, down.1, usize::MAX, |bytes| {
                        if std::mem::take(&mut wire.lock().unwrap().tamper) {
                            *bytes.last_mut().unwrap() ^= 1;
                        }
                    });
                });
            }
        });
        Self { addr, wire }
    }

    /// Cuts everything that passes.
    pub(crate) fn cut(&self, how: Cut) {
        cut_all(&mut self.wire.lock().unwrap(), how);
    }

    /// Alters one bit of what goes to the dialer next.
    pub(crate) fn tamper(&self) {
        self.wire.lock().unwrap().tamper = true;
    }
}

fn cut_all(wire: &mut Wire, how: Cut) {
    for socket in wire.sockets.drain(..) {
        match how {
            Cut::Fin => drop(socket.shutdown(Shutdown::Both)),
            Cut::Reset => {
                // The last close of the socket then sends a RST; the pumps hold it, so they are woken first.
                SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                drop(socket.shutdown(Shutdown::Read));
            }
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut limit: usize, mut alter: impl FnMut(&mut [u8])) {
    let mut buffer = [0; 16 << 10];
    while limit > 0 {
        let most = buffer.len().min(limit);
        let Ok(length @ 1..) = from.read(&mut buffer[..most]) else { break };
        alter(&mut buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        limit -= length;
    }
}
