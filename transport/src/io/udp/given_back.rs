//! Datagrams that the network gave back: nobody listens there, or no way leads there (ICMP, RFC 792 and RFC 4443).

use std::{io, net::SocketAddr};

use super::UdpSocket;

/// A datagram of ours that did not arrive.
#[derive(Debug)]
pub(crate) struct GivenBack {
    /// Where it was to go.
    pub(crate) to: SocketAddr,
    /// Why it did not.
    pub(crate) reason: io::ErrorKind,
    /// Its beginning, as far as whoever gave it back has quoted it.
    quoted: Vec<u8>,
}

impl GivenBack {
    /// Whether it is the datagram with that mark.
    pub(crate) fn is(&self, mark: &Mark) -> bool {
        !mark.0.is_empty() && self.quoted.get(1..).is_some_and(|quoted| quoted.starts_with(&mark.0))
    }
}

/// By what the first datagrams of a QUIC connection are known again: the id that its dialer drew (RFC 9000 §7.2), which
/// nobody knows who has not seen one. So nobody else can make a dial fail by an invented ICMP message.
#[derive(Debug, Default)]
pub(crate) struct Mark(Vec<u8>);

impl Mark {
    /// Takes the mark of a datagram with a long header (RFC 9000 §17.2): version, length of the id, id. Short ones have none.
    pub(crate) fn note(&mut self, datagram: &[u8]) {
        self.0.clear();
        let length = datagram.get(ID_LENGTH_AT).map_or(0, |length| usize::from(*length));
        if length >= SHORTEST_ID && datagram[0] & LONG_HEADER != 0 {
            self.0.extend(datagram.get(1..ID_LENGTH_AT + 1 + length).unwrap_or_default());
        }
    }
}

impl UdpSocket {
    /// Has the system keep what is given back. From then on any call may fail by the fate of an earlier datagram, whoever it was for.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn watch_given_back(&self) {
        let Some(kernel) = self.kernel() else { return };
        if let Err(error) = kernel.state.enable_transport_errors((&kernel.socket).into()) {
            tracing::debug!(%error, "what the network gives back is not heard of");
        }
    }

    /// Nothing is kept elsewhere.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[expect(clippy::unused_self, reason = "elsewhere the socket is told")]
    pub(crate) fn watch_given_back(&self) {}

    /// The next datagram that was given back. `reason`: what a call failed with that told of it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn next_given_back(&self, reason: Option<io::ErrorKind>) -> Option<GivenBack> {
        use rustix::net::{RecvFlags, recvfrom};

        let socket = &self.kernel()?.socket;
        // The queue holds the reason too, in a form that takes unsafe code to read; it is that of the socket until then.
        let pending = socket.take_error().ok().flatten().map(|error| error.kind());
        let mut quoted = vec![0; QUOTED_BYTES];
        let flags = RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT;
        let (length, _, to) = recvfrom(socket, quoted.as_mut_slice(), flags).ok()?;
        quoted.truncate(length);
        let to = SocketAddr::try_from(to?).ok()?;
        let reason = pending.or(reason).unwrap_or(io::ErrorKind::ConnectionRefused);
        Some(GivenBack { to, reason, quoted })
    }

    /// The system does not tell.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[expect(clippy::unused_self, reason = "elsewhere the socket is asked")]
    pub(crate) fn next_given_back(&self, _: Option<io::ErrorKind>) -> Option<GivenBack> {
        None
    }
}

const LONG_HEADER: u8 = 0x80;
/// Behind the first byte and the version.
const ID_LENGTH_AT: usize = 5;
/// RFC 9000 §7.2: what a dialer draws has at least so many bytes.
const SHORTEST_ID: usize = 8;
/// The longest mark: first byte, version, length, an id of 20 bytes.
#[cfg(any(target_os = "linux", target_os = "android"))]
const QUOTED_BYTES: usize = 1 + 4 + 1 + 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn quoting(quoted: &[u8]) -> GivenBack {
        let to = ([127, 0, 0, 1], 9).into();
        GivenBack { to, reason: io::ErrorKind::ConnectionRefused, quoted: quoted.to_vec() }
    }

    #[test]
    fn a_datagram_is_known_again_by_its_id_alone() {
        let initial = [&[0xc3, 0, 0, 0, 1, 8][..], &[7; 8], &[0, 1, 2, 3]].concat();
        let mut mark = Mark::default();
        mark.note(&initial);
        let mut again = initial.clone();
        again[0] = 0xc9; // Another packet number, under header protection.
        assert!(
            quoting(&initial).is(&mark) && quoting(&again).is(&mark) && quoting(&initial[..14]).is(&mark)
        );
        assert!(!quoting(&initial[..13]).is(&mark), "a quote too short proves nothing");
        again[13] ^= 1;
        assert!(!quoting(&again).is(&mark) && !quoting(&[]).is(&mark));
    }

    #[test]
    fn what_has_no_drawn_id_is_never_known_again() {
        let mut mark = Mark::default();
        for datagram in [
            &[][..],
            &[0xc3, 0, 0, 0, 1],
            &[0x43, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0xc3, 0, 0, 0, 1, 20, 1],
        ] {
            mark.note(datagram);
            assert!(!quoting(datagram).is(&mark), "{datagram:?}");
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn a_datagram_to_a_closed_port_comes_back_and_the_next_one_goes_out() {
        use crate::protocol::quic::Outgoing;

        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let open = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind(1, ([127, 0, 0, 1], 0).into()).unwrap();
        socket.watch_given_back();
        let initial = [&[0xc3, 0, 0, 0, 1, 8][..], &[7; 8], &[0; 1186]].concat();
        let mut mark = Mark::default();
        mark.note(&initial);
        let whole = Outgoing { bytes: initial.len(), segment_bytes: None, ecn: None };
        socket.send(closed, None, whole, &initial).unwrap();
        // Loopback answers within the call. The one whose datagram is fine does not hear of it.
        socket.send(open.local_addr().unwrap(), None, whole, &initial).unwrap();
        assert_eq!(open.recv(&mut [0; 2_000]).unwrap(), initial.len());
        let back = socket.next_given_back(None).expect("loopback gives it back at once");
        assert_eq!((back.to, back.reason), (closed, io::ErrorKind::ConnectionRefused));
        assert!(back.is(&mark));
        assert!(socket.next_given_back(None).is_none());
    }
}
