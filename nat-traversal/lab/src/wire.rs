//! Wires with delay, jitter and loss between pairs of interfaces: a thread that takes frames off one and puts them on the
//! other. Kernels without the queueing discipline netem have nothing else for it.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeSpec;

use crate::topology::Link;

/// Some wires at work, until it is dropped.
#[derive(Debug)]
pub(crate) struct Wires {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Wires {
    /// Joins pairs of interfaces of the calling thread's namespace. Frames must come with checksums and fit the MTU:
    /// offloading has to be off.
    pub(crate) fn start(pairs: &[(String, String, Link)]) -> io::Result<Self> {
        let mut ways = Vec::new();
        for (left, right, link) in pairs {
            let (to_left, to_right) = (open(left)?, open(right)?);
            ways.push(Way::new(to_left.try_clone()?, to_right.try_clone()?, *link));
            ways.push(Way::new(to_right, to_left, *link));
        }
        let (stop, stopped) = UnixStream::pair()?;
        let thread =
            thread::Builder::new().name("nat-lab-wire".into()).spawn(move || carry(ways, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        drop(self.stop.write_all(&[0]));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the thread of the wires had panicked");
        }
    }
}

/// A packet socket at one interface.
fn open(interface: &str) -> io::Result<OwnedFd> {
    let address = getifaddrs()?
        .filter(|found| found.interface_name == interface)
        .find_map(|found| found.address?.as_link_addr().copied())
        .ok_or_else(|| io::Error::other(format!("no interface {interface}")))?;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER_BYTES)?;
    bind(socket.as_raw_fd(), &address)?;
    // Until it was bound it heard all interfaces.
    let mut frame = [0; 1];
    while recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame).is_ok() {}
    Ok(socket)
}

/// One direction of a wire.
struct Way {
    from: OwnedFd,
    to: OwnedFd,
    link: Link,
    /// Frames under way and when they arrive, in this order.
    frames: VecDeque<(Instant, Vec<u8>)>,
}

impl Way {
    const fn new(from: OwnedFd, to: OwnedFd, link: Link) -> Self {
        Self { from, to, link, frames: VecDeque::new() }
    }

    /// Takes in what has come.
    fn take(&mut self, buffer: &mut [u8], chance: &mut Chance) {
        // The address tells the kind of packet, so what the interface itself sends can be left out.
        while let Ok((length, source)) = recvfrom::<LinkAddr>(self.from.as_raw_fd(), buffer) {
            let frame = &buffer[..length];
            if source.is_none_or(|source| source.pkttype() == OUTGOING) {
                continue;
            }
            // Who has which address is asked within a network, not over the way to the internet.
            if frame.get(12..14) == Some(&ARP) {
                let _ = send(self.to.as_raw_fd(), frame, MsgFlags::empty());
                continue;
            }
            if self.frames.len() >= MAX_FRAMES || chance.below_one() < self.link.loss {
                continue;
            }
            let mut frame = frame.to_vec();
            if !count_down(&mut frame, self.link.hops) {
                continue;
            }
            let due = Instant::now() + self.link.delay + self.link.jitter.mul_f64(chance.below_one());
            let due = self.frames.back().map_or(due, |(last, _)| due.max(*last));
            self.frames.push_back((due, frame));
        }
    }

    /// Hands on what has arrived; tells when the next does.
    fn give(&mut self, now: Instant) -> Option<Instant> {
        while let Some((due, frame)) = self.frames.front() {
            if *due > now {
                return Some(*due);
            }
            match send(self.to.as_raw_fd(), frame, MsgFlags::empty()) {
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return Some(now + BUSY),
                // An interface that is down loses what is sent to it, as wires do.
                Ok(_) | Err(_) => drop(self.frames.pop_front()),
            }
        }
        None
    }
}

/// Does to a frame what so many routers do to its hops; false if it does not get past them.
fn count_down(frame: &mut [u8], routers: u8) -> bool {
    let (at, checksum) = match frame.get(12..).and_then(|rest| rest.first_chunk()) {
        Some(&IPV4) => (14 + 8, Some(14 + 10)),
        // What says who the neighbours are may not have passed a router.
        Some(&IPV6) if frame.get(14 + 7) == Some(&u8::MAX) => return true,
        Some(&IPV6) => (14 + 7, None),
        _ => return true,
    };
    let Some(hops) = frame.get(at).and_then(|hops| hops.checked_sub(routers)).filter(|left| *left > 0) else {
        return routers == 0;
    };
    frame[at] = hops;
    if let Some(bytes) = checksum.and_then(|at| frame.get_mut(at..at + 2)) {
        // The hops are the upper half of a word of the sum (RFC 1624).
        let sum = u32::from(u16::from_be_bytes([bytes[0], bytes[1]])) + (u32::from(routers) << 8);
        let folded = (sum & 0xFFFF) + (sum >> 16);
        bytes.copy_from_slice(&u16::try_from(folded).unwrap_or(u16::MAX).to_be_bytes());
    }
    true
}

fn carry(mut ways: Vec<Way>, stopped: &UnixStream) {
    let mut buffer = vec![0; MAX_FRAME_BYTES];
    let mut chance = Chance::new();
    loop {
        let now = Instant::now();
        let next = ways.iter_mut().filter_map(|way| way.give(now)).min();
        let timeout =
            next.map(|next| TimeSpec::from_duration(next.saturating_duration_since(Instant::now())));
        let mut waits: Vec<PollFd<'_>> =
            ways.iter().map(|way| PollFd::new(way.from.as_fd(), PollFlags::POLLIN)).collect();
        waits.push(PollFd::new(stopped.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut waits, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return eprintln!("the wires cannot wait: {error}"),
        }
        if waits.last().is_some_and(|stop| stop.any() == Some(true)) {
            return;
        }
        ways.iter_mut().for_each(|way| way.take(&mut buffer, &mut chance));
    }
}

/// Random enough for losses (xorshift64).
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self(RandomState::new().hash_one(std::process::id()) | 1)
    }

    fn below_one(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// `PACKET_OUTGOING` of `linux/if_packet.h`.
const OUTGOING: u8 = 4;

/// The kind of a frame that asks for a hardware address.
const ARP: [u8; 2] = [0x08, 0x06];

/// Those of packets.
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xDD];

const MAX_FRAME_BYTES: usize = 65_536;

/// A second of 100 Mbit/s in full frames.
const MAX_FRAMES: usize = 8_192;
const BUFFER_BYTES: usize = 8 << 20;

/// How long to wait for a full interface.
const BUSY: Duration = Duration::from_micros(200);
