//! The two kinds of socket: the shared port, which only listens, and a port of our own on each address, from which
//! we speak and to which others answer.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use mio::net::UdpSocket;
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};

use crate::protocol::LinkId;

/// The shared port of one address family, on all interfaces at once.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: UdpSocket,
    pub(crate) family: IpAddr,
    state: UdpSocketState,
}

/// What one read of a [`Listener`] brought: one or, merged by the system, several datagrams of one sender.
pub(crate) struct Received {
    pub(crate) source: SocketAddr,
    pub(crate) link: Option<LinkId>,
    pub(crate) bytes: usize,
    /// The length of each datagram but the last.
    pub(crate) stride: usize,
}

/// How to come by the shared port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// A port that nobody holds, open to others from then on. A system that chooses among shared ports too would
    /// otherwise put strangers on one port.
    Found,
    /// A port that others may have found.
    Join,
}

impl Listener {
    /// Opens the port, shared with every process that shares it too.
    pub(crate) fn open(family: IpAddr, port: u16, claim: Claim) -> io::Result<Self> {
        let socket = datagram_socket(family)?;
        let address = SocketAddr::new(family, port).into();
        match claim {
            Claim::Join => {
                share(&socket)?;
                socket.bind(&address)?;
            }
            Claim::Found => {
                socket.bind(&address)?;
                share(&socket)?;
            }
        }
        #[cfg(target_os = "linux")]
        if family.is_ipv4() {
            // Only what we joined, not what any process of this machine joined.
            socket.set_multicast_all_v4(false)?;
        }
        let socket = UdpSocket::from_std(socket.into());
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket, family, state })
    }

    /// Receives `group` by the link from now on; being a member already is fine.
    pub(crate) fn join(&self, group: IpAddr, link: LinkId) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        let joined = match group {
            IpAddr::V4(group) => socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(link.0)),
            IpAddr::V6(group) => socket.join_multicast_v6(&group, link.0),
        };
        joined.or_else(|error| if error.kind() == io::ErrorKind::AddrInUse { Ok(()) } else { Err(error) })
    }

    /// Gives a membership back, so that interfaces that come and go do not use up the system's bound.
    pub(crate) fn leave(&self, group: IpAddr, link: LinkId) {
        let socket = SockRef::from(&self.socket);
        let left = match group {
            IpAddr::V4(group) => socket.leave_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(link.0)),
            IpAddr::V6(group) => socket.leave_multicast_v6(&group, link.0),
        };
        if let Err(error) = left {
            // The usual case: the interface is gone, and the membership with it.
            tracing::trace!(%group, link = link.0, %error, "membership was gone already");
        }
    }

    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut meta = [RecvMeta::default()];
        let mut slices = [IoSliceMut::new(buffer)];
        self.socket.try_io(|| self.state.recv((&self.socket).into(), &mut slices, &mut meta))?;
        let [meta] = meta;
        Ok(Received {
            source: meta.addr,
            link: meta.interface_index.map(LinkId),
            bytes: meta.len,
            stride: meta.stride,
        })
    }
}

/// A socket to speak from: bound to one address of one link, on a port of its own.
#[derive(Debug)]
pub(crate) struct Speaker {
    pub(crate) socket: UdpSocket,
    pub(crate) voice: Voice,
}

/// From where, and to whom, a speaker speaks; two equal voices need one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Voice {
    pub(crate) link: LinkId,
    pub(crate) address: IpAddr,
    /// Broadcast addresses and groups: one announcement goes to each.
    pub(crate) everybody: Vec<SocketAddr>,
}

impl Voice {
    pub(crate) fn speaks_to(&self, link: LinkId, destination: SocketAddr) -> bool {
        self.link == link && self.everybody.contains(&destination)
    }
}

impl Speaker {
    pub(crate) fn open(voice: Voice) -> io::Result<Self> {
        let socket = datagram_socket(voice.address)?;
        let local = match voice.address {
            IpAddr::V4(address) => {
                socket.set_broadcast(true)?;
                socket.set_multicast_if_v4(&address)?;
                socket.set_multicast_ttl_v4(LINK_ONLY)?;
                socket.set_multicast_loop_v4(true)?;
                SocketAddr::from((address, 0))
            }
            IpAddr::V6(address) => {
                socket.set_multicast_if_v6(voice.link.0)?;
                socket.set_multicast_hops_v6(LINK_ONLY)?;
                socket.set_multicast_loop_v6(true)?;
                SocketAddrV6::new(address, 0, 0, voice.link.0).into()
            }
        };
        socket.bind(&local.into())?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into()), voice })
    }

    /// Whether answers to `address` can go out here.
    pub(crate) const fn reaches(&self, address: SocketAddr) -> bool {
        self.voice.address.is_ipv4() == address.is_ipv4()
    }
}

/// The "any" addresses of both families, by which a [`Listener`] of that family is opened.
pub(crate) const FAMILIES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

fn share(socket: &Socket) -> io::Result<()> {
    // Elsewhere than on Linux only this shares a port for broadcast and multicast. On Linux the option below does,
    // between users too, while this one would confine sharing to processes of one user.
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)
}

fn datagram_socket(family: IpAddr) -> io::Result<Socket> {
    let domain = if family.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if family.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// One hop: no router passes a beacon on.
const LINK_ONLY: u32 = 1;
