//! Linux tells by a netlink socket (`sock_diag(7)`), which takes no unsafe code, as the `ioctl` for it would.

use std::net::{IpAddr, SocketAddr};

use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with},
};

use super::Outstanding;

/// Asks for one connection.
#[derive(Debug)]
pub(in crate::io::tcp) struct Unacknowledged {
    netlink: OwnedFd,
    request: [u8; REQUEST_BYTES],
}

impl Unacknowledged {
    /// `None` where the system does not tell. Call it while the connection is there.
    pub(in crate::io::tcp) fn of(local: SocketAddr, remote: SocketAddr) -> Option<Self> {
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        let netlink = socket_with(family, SocketType::RAW, flags, Some(netlink::SOCK_DIAG)).ok()?;
        let asker = Self { netlink, request: request(local, remote) };
        matches!(asker.ask(), Some(Outstanding::Bytes(_))).then_some(asker)
    }

    /// Returns at once. `None`: the system does not tell.
    pub(in crate::io::tcp) fn ask(&self) -> Option<Outstanding> {
        send(&self.netlink, &self.request, SendFlags::empty()).ok()?;
        let mut answer = [0; ANSWER_BYTES];
        // The kernel has answered by the time that `send` returns.
        let (length, _) = recv(&self.netlink, answer.as_mut_slice(), RecvFlags::DONTWAIT).ok()?;
        read(answer.get(..length)?)
    }
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2` of `linux/inet_diag.h`: numbers as the machine writes them, ports and
/// addresses as networks do.
fn request(local: SocketAddr, remote: SocketAddr) -> [u8; REQUEST_BYTES] {
    let mut bytes = Vec::with_capacity(REQUEST_BYTES);
    bytes.extend((REQUEST_BYTES as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]); // Sequence and sender.
    bytes.extend([if local.is_ipv4() { AF_INET } else { AF_INET6 }, IPPROTO_TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes()); // In whatever state.
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    bytes.extend(address(local.ip()));
    bytes.extend(address(remote.ip()));
    bytes.extend(0u32.to_ne_bytes()); // On whatever interface.
    bytes.extend([0xff; 8]); // No cookie.
    bytes.try_into().expect("the fields have 72 bytes")
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// `struct nlmsghdr`, then `struct inet_diag_msg`, or an error number.
fn read(answer: &[u8]) -> Option<Outstanding> {
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    match u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?) {
        // Once a connection is forgotten, its listening socket is the nearest that the kernel finds.
        SOCK_DIAG_BY_FAMILY if answer.get(STATE_AT) == Some(&TCP_LISTEN) => Some(Outstanding::Gone),
        SOCK_DIAG_BY_FAMILY => number(WRITE_QUEUE_AT).map(Outstanding::Bytes),
        NLMSG_ERROR => (number(ERROR_AT)? == ENOENT.wrapping_neg()).then_some(Outstanding::Gone),
        _ => None,
    }
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const ENOENT: u32 = 2;
/// The header, then the request.
const REQUEST_BYTES: usize = 16 + 56;
/// Behind the header, four small fields, the connection's name, and two numbers.
const WRITE_QUEUE_AT: usize = 16 + 4 + 48 + 8;
/// Behind the header and the family.
const STATE_AT: usize = 16 + 1;
const TCP_LISTEN: u8 = 10;
const ERROR_AT: usize = 16;
/// Room for the answer and what newer kernels add to it.
const ANSWER_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Shutdown, TcpListener, TcpStream},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn bytes_are_outstanding_until_the_peer_has_room_for_them() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(any) else {
                println!("NOT RUN: {any}: this machine has no IPv6");
                continue;
            };
            let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut reader, _) = listener.accept().unwrap();
            let names = (writer.local_addr().unwrap(), writer.peer_addr().unwrap());
            let Some(asker) = Unacknowledged::of(names.0, names.1) else {
                println!("NOT RUN: {any}: this kernel does not tell");
                continue;
            };
            writer.set_nonblocking(true).unwrap();
            let mut sent = 0;
            while let Ok(written) = writer.write(&[7; 1 << 16]) {
                sent += written;
            }
            let Some(Outstanding::Bytes(full)) = asker.ask() else { panic!("the connection is up") };
            assert!(full > 0, "the reader has no room for {sent} bytes");
            writer.shutdown(Shutdown::Write).unwrap();
            let mut received = Vec::new();
            reader.read_to_end(&mut received).unwrap();
            assert_eq!(received.len(), sent);
            wait_for(&asker, Outstanding::Bytes(0));
            drop((reader, writer));
            wait_for_end(&asker);
        }
    }

    #[test]
    fn what_is_no_answer_says_nothing() {
        for length in 0..ERROR_AT + 4 {
            let mut answer = vec![0; length];
            if let Some(kind) = answer.get_mut(4..6) {
                kind.copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
            }
            assert_eq!(read(&answer), None, "{length}");
        }
    }

    fn wait_for(asker: &Unacknowledged, expected: Outstanding) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while asker.ask() != Some(expected) {
            assert!(Instant::now() < deadline, "{:?}", asker.ask());
            thread::yield_now();
        }
    }

    /// Gone, or remembered for a while as one that has nothing to send.
    fn wait_for_end(asker: &Unacknowledged) {
        let end = asker.ask();
        assert!(matches!(end, Some(Outstanding::Gone | Outstanding::Bytes(0))), "{end:?}");
    }
}
