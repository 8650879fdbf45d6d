//! A path with delay and loss for datagrams, between a client and a server that are both on loopback.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use socket2::Socket;

/// What a path does to datagrams, each way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    pub(crate) delay: Duration,
    /// One of so many is lost; zero: none.
    pub(crate) one_lost_in: u64,
}

/// A path in service: what a client sends to its address arrives at the server, late or never, and back. Ends on drop.
pub(crate) struct Link {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
}

/// Datagrams under way in one direction; more are dropped, as by a router whose queue is full. 100 ms of 1 Gbit/s.
const QUEUE_DATAGRAMS: usize = 10_000;

/// The largest datagram there is.
const DATAGRAM_BYTES: usize = 65_536;

/// How long a direction listens before it looks whether it should end.
const LOOK_UP: Duration = Duration::from_millis(100);

impl Link {
    pub(crate) fn to(server: SocketAddr, path: Path) -> Result<Self> {
        let near = Arc::new(socket()?);
        let far = Arc::new(socket()?);
        let address = near.local_addr()?;
        let closed = Arc::new(AtomicBool::new(false));
        let client = Arc::new(OnceLock::new());

        let there =
            Direction { from: Arc::clone(&near), to: Arc::clone(&far), path, closed: Arc::clone(&closed) };
        let back = Direction { from: far, to: near, path, closed: Arc::clone(&closed) };
        let sender = Arc::clone(&client);
        there.start(move |from| {
            sender.get_or_init(|| from);
            Some(server)
        });
        back.start(move |_| client.get().copied());
        Ok(Self { address, closed })
    }

    /// Where the client must send instead of to the server.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

struct Direction {
    from: Arc<UdpSocket>,
    to: Arc<UdpSocket>,
    path: Path,
    closed: Arc<AtomicBool>,
}

impl Direction {
    /// One thread takes datagrams in, another sends each when its time has come. `target` tells where those of a
    /// sender go.
    fn start(self, target: impl Fn(SocketAddr) -> Option<SocketAddr> + Send + 'static) {
        let (sender, receiver) = sync_channel(QUEUE_DATAGRAMS);
        let to = Arc::clone(&self.to);
        thread::spawn(move || deliver(&to, &receiver));
        thread::spawn(move || self.take_in(&sender, target));
    }

    fn take_in(&self, queue: &SyncSender<Late>, target: impl Fn(SocketAddr) -> Option<SocketAddr>) {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let mut count = 0_u64;
        while !self.closed.load(Ordering::Relaxed) {
            let Ok((length, from)) = self.from.recv_from(&mut buffer) else { continue };
            let Some(target) = target(from) else { continue };
            count += 1;
            if self.path.one_lost_in > 0 && scattered(count).is_multiple_of(self.path.one_lost_in) {
                continue;
            }
            let due = Instant::now() + self.path.delay;
            // A full queue loses the datagram.
            let _ = queue.try_send(Late { due, target, bytes: buffer[..length].to_vec() });
        }
    }
}

struct Late {
    due: Instant,
    target: SocketAddr,
    bytes: Vec<u8>,
}

fn deliver(socket: &UdpSocket, queue: &Receiver<Late>) {
    for late in queue {
        thread::sleep(late.due.saturating_duration_since(Instant::now()));
        // Refused when the receiver has just gone: lost, like others.
        let _ = socket.send_to(&late.bytes, late.target);
    }
}

/// Spreads a count over all numbers (splitmix64), so that losses come neither in step nor in rows.
fn scattered(count: u64) -> u64 {
    let mut bits = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(LOOK_UP))?;
    let socket = Socket::from(socket);
    socket.set_recv_buffer_size(8 << 20)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_arrives_late_and_is_answered_late() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let delay = Duration::from_millis(20);
        let link = Link::to(server.local_addr().unwrap(), Path { delay, one_lost_in: 0 }).unwrap();

        let begin = Instant::now();
        client.send_to(b"hello", link.address()).unwrap();
        let mut buffer = [0; 8];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..length], from).unwrap();
        let length = client.recv(&mut buffer).unwrap();

        assert_eq!(&buffer[..length], b"hello");
        assert!(begin.elapsed() >= 2 * delay);
    }

    #[test]
    fn about_as_many_are_lost_as_asked_for() {
        let lost = (1..=100_000).filter(|count| scattered(*count).is_multiple_of(100)).count();
        assert!((900..1100).contains(&lost), "{lost}");
    }
}
