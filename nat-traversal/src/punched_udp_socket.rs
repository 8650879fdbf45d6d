use std::net::{SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::time::Instant;

use crate::error::PunchError;
use crate::io::run::{RunError, Sockets, run};
use crate::io::{clock, entropy};
use crate::protocol::{PubRendezvousInfo, PunchEvent, PunchOptions, UdpPuncher};
use crate::{MappingContext, PrivRendezvousInfo};

/// A UDP socket and the address of a peer with which it can exchange datagrams, whatever NATs stand between.
///
/// ```
/// use std::thread;
/// use std::time::{Duration, Instant};
/// use nat_traversal::{
///     HolePunchServer, MappedUdpSocket, MappingConfig, MappingContext, PunchedUdpSocket, gen_rendezvous_info,
/// };
///
/// let context = MappingContext::new(MappingConfig::new())?;
/// let mine = MappedUdpSocket::map(std::net::UdpSocket::bind("127.0.0.1:0")?, &context)?;
/// let yours = MappedUdpSocket::map(std::net::UdpSocket::bind("127.0.0.1:0")?, &context)?;
/// let (my_secret, my_info) = gen_rendezvous_info(mine.endpoints);
/// let (your_secret, your_info) = gen_rendezvous_info(yours.endpoints);
/// let deadline = Instant::now() + Duration::from_secs(10);
/// thread::scope(|scope| {
///     // This is another process on another host.
///     scope.spawn(|| PunchedUdpSocket::punch_hole(yours.socket, your_secret, &my_info, &context, deadline));
///     let punched = PunchedUdpSocket::punch_hole(mine.socket, my_secret, &your_info, &context, deadline)?;
///     punched.socket.send_to(b"hello", punched.peer_addr)?;
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PunchedUdpSocket {
    /// The socket, in blocking mode. It is not always the one that was handed in: against a NAT with random ports, one
    /// of several hundred is the one that got through.
    pub socket: UdpSocket,
    /// The peer's address as seen from here.
    pub peer_addr: SocketAddr,
    /// Whether it was us who chose the pair of addresses. Exactly one of two peers did, which serves to give them
    /// different roles in what follows.
    pub leads: bool,
}

impl PunchedUdpSocket {
    /// Punches a hole: the peer must call this as well, within a few seconds, with the other halves of the information.
    /// Blocks until both can hear each other: about one and a half round trips if both call at once and their NATs keep
    /// ports; at most until `deadline`. Where one of them draws ports at random this mostly fails: see
    /// [`punch_hole_with`](Self::punch_hole_with).
    ///
    /// `socket` must be the one whose endpoints are in `ours`. Late packets of the punch may still arrive on it afterwards;
    /// [`protocol::stun::Message::decode`](crate::protocol::stun::Message::decode) tells them from others.
    ///
    /// # Errors
    ///
    /// [`PunchError::Hopeless`] at once if the two NATs cannot be brought together, [`PunchError::TimedOut`] with the first
    /// obstacle at the deadline, [`PunchError::Interrupted`] if someone [interrupts](crate::Interrupter) the context.
    pub fn punch_hole(
        socket: UdpSocket,
        ours: PrivRendezvousInfo,
        theirs: &PubRendezvousInfo,
        context: &MappingContext,
        deadline: Instant,
    ) -> Result<Self, PunchError> {
        Self::punch_hole_with(socket, ours, theirs, context, &PunchOptions::new(), deadline)
    }

    /// The same with options, of which both sides need the same: against a NAT that draws ports at random many packets go to one
    /// address, which takes several seconds and asks for somebody who [vouches](PunchOptions) for that address.
    ///
    /// # Errors
    ///
    /// As [`punch_hole`](Self::punch_hole); the obstacle is [`Obstacle::NotVouched`](crate::protocol::Obstacle::NotVouched) where such
    /// an address was missing.
    pub fn punch_hole_with(
        socket: UdpSocket,
        ours: PrivRendezvousInfo,
        theirs: &PubRendezvousInfo,
        context: &MappingContext,
        options: &PunchOptions,
        deadline: Instant,
    ) -> Result<Self, PunchError> {
        let start = clock::now();
        let endpoints = ours.endpoints().to_vec();
        let keys = ours.agree(theirs)?;
        let leads = keys.leads();
        let mut puncher =
            UdpPuncher::new(start, &endpoints, theirs.endpoints(), keys, entropy::seed()).options(options);
        if let Some(hops) = context.opener_hops() {
            puncher = puncher.opener_hops(hops);
        }
        let mut sockets = Sockets::new(socket);
        let ended = |event| match event {
            PunchEvent::Punched { socket, peer } => ControlFlow::Break(Ok((socket, peer))),
            PunchEvent::Hopeless(obstacle) => ControlFlow::Break(Err(obstacle)),
            PunchEvent::Heard { .. } => ControlFlow::Continue(()),
        };
        match run(&mut puncher, &mut sockets, deadline, context.waits(), ended) {
            Ok(Ok((socket, peer))) => {
                tracing::debug!(%peer, elapsed = ?clock::now().duration_since(start), "punched a hole");
                let socket = sockets.take(socket).map_err(PunchError::Socket)?;
                Ok(Self { socket, peer_addr: peer, leads })
            }
            Ok(Err(obstacle)) => Err(PunchError::Hopeless(obstacle)),
            Err(RunError::TimedOut) => Err(PunchError::TimedOut {
                waited: clock::now().duration_since(start),
                obstacle: puncher.obstacle(),
            }),
            Err(RunError::Interrupted) => Err(PunchError::Interrupted),
            Err(RunError::Io(error)) => Err(PunchError::Socket(error)),
        }
    }
}
