use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crate::error::RelayError;
use crate::io::relays::{Ended, Relay, WaitError};
use crate::io::run::RunError;
use crate::io::{clock, names};
use crate::protocol::turn::{AddressFamily, TurnFailure, TurnStats};
use crate::protocol::{AddrKind, MappedSocketAddr, PortRule};
use crate::{MappingContext, TurnServer, TurnSocket};

/// An address of a relay, used like a UDP socket: peers send to it, and what we send comes from it.
///
/// The thread `nat-io` receives for all relays and keeps them alive while they are held, so nobody has to call anything in
/// time. At most 256 packets wait to be taken; the oldest is dropped first. Dropping the
/// socket gives the allocation back in the background, within 750 ms, and returns at once. It can be shared between
/// threads by reference.
///
/// A peer reaches us after we have sent to it, or [permitted](Self::permit) it; for ten minutes after the last of these.
///
/// ```no_run
/// use std::time::{Duration, Instant};
/// use nat_traversal::{MappingConfig, MappingContext, RelayedUdpSocket, TurnServer};
///
/// let context = MappingContext::new(MappingConfig::new())?;
/// let server: TurnServer = "turns:alice:secret@relay.example".parse()?;
/// let deadline = Instant::now() + Duration::from_secs(10);
/// let relayed = RelayedUdpSocket::allocate(&context, &server, deadline)?;
/// println!("peers reach us at {}", relayed.relayed_addr());
///
/// let peer = "198.51.100.7:4000".parse()?;
/// relayed.send_to(b"hello", peer, deadline)?;
/// let mut buffer = [0; 1500];
/// let (length, from) = relayed.recv_from(&mut buffer, deadline)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RelayedUdpSocket {
    relay: Arc<Relay>,
    server: String,
    relayed: SocketAddr,
    mapped: Option<SocketAddr>,
}

impl RelayedUdpSocket {
    /// Asks a server for an IPv4 address. Blocks for the lookup of its name, two round trips over UDP, one more over TCP and
    /// two more over TLS; at most until `deadline`.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, does not prove itself, does not accept the credentials or has no room; at the
    /// deadline; and if someone [interrupts](crate::Interrupter) the context.
    pub fn allocate(
        context: &MappingContext,
        server: &TurnServer,
        deadline: Instant,
    ) -> Result<Self, RelayError> {
        Self::allocate_family(context, server, AddressFamily::V4, deadline)
    }

    /// As [`allocate`](Self::allocate), for an address of this family.
    ///
    /// # Errors
    ///
    /// As for `allocate`.
    pub fn allocate_family(
        context: &MappingContext,
        server: &TurnServer,
        family: AddressFamily,
        deadline: Instant,
    ) -> Result<Self, RelayError> {
        let start = clock::now();
        if context.waits().is_interrupted() {
            return Err(RelayError::Interrupted);
        }
        let mut addresses = resolve(context, server, start, deadline)?;
        // Another port of ours, if the server still has an allocation for the one that we happened to get.
        addresses.extend(addresses.clone());
        let mut tried = 0;
        loop {
            // The later addresses are to have their chance as well.
            let time = clock::now();
            let left = u32::try_from((addresses.len() / 2).saturating_sub(tried)).unwrap_or(1).max(1);
            let share = time + deadline.saturating_duration_since(time) / left;
            let result = Self::allocate_at(context, server, addresses[tried], family, start, share);
            tried += 1;
            let again = match &result {
                Err(RelayError::Server { source: TurnFailure::Refused(437), .. }) => tried < addresses.len(),
                Err(RelayError::Interrupted) | Ok(_) => false,
                Err(_) => tried < addresses.len() / 2,
            };
            if !again || clock::now() >= deadline {
                return result;
            }
        }
    }

    fn allocate_at(
        context: &MappingContext,
        server: &TurnServer,
        address: SocketAddr,
        family: AddressFamily,
        start: Instant,
        deadline: Instant,
    ) -> Result<Self, RelayError> {
        let name = server.to_string();
        let failed = |source| RelayError::Start { server: server.to_string(), source };
        let socket = TurnSocket::connect(server, address, family).map_err(failed)?;
        let relay = context.relays().add(socket, context.waits()).map_err(failed)?;
        match relay.wait_allocated(deadline) {
            Ok((relayed, mapped)) => Ok(Self { relay, server: name, relayed, mapped }),
            Err(error) => {
                relay.close();
                Err(told(error, &name, start))
            }
        }
    }

    /// The address at which peers reach us.
    #[must_use]
    pub const fn relayed_addr(&self) -> SocketAddr {
        self.relayed
    }

    /// The address under which the server sees us, as a STUN server would tell it; over TCP and TLS, that of the connection.
    #[must_use]
    pub const fn mapped_addr(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// The relay's address as an endpoint for [`gen_rendezvous_info`](crate::gen_rendezvous_info).
    #[must_use]
    pub const fn endpoint(&self) -> MappedSocketAddr {
        MappedSocketAddr {
            addr: self.relayed,
            kind: AddrKind::Relayed,
            nat_restricted: true,
            ports: PortRule::Stable,
        }
    }

    /// Lets a peer send to us, from any port of its address, before we have sent to it. Does not block.
    ///
    /// # Errors
    ///
    /// If the relay is gone, there are 256 peers already, or the server does not let us talk to this one.
    pub fn permit(&self, peer: IpAddr) -> Result<(), RelayError> {
        let sent = self.relay.with_socket(|socket| socket.permit(peer));
        sent.map_err(|source| RelayError::Send { peer: SocketAddr::new(peer, 0), source })
    }

    /// Sends a packet to a peer. Over UDP this does not block; over TCP and TLS only if the server is 256 KiB behind, at
    /// most until `deadline`. The packet may get lost, as with any UDP socket. Payloads above about 1,200 bytes are likely
    /// to be.
    ///
    /// # Errors
    ///
    /// [`RelayError::Send`] if the peer is of another address family than the relay's address or the server refuses it;
    /// others if the relay is gone, at the deadline, and when interrupted.
    pub fn send_to(&self, payload: &[u8], peer: SocketAddr, deadline: Instant) -> Result<(), RelayError> {
        let start = clock::now();
        self.relay.send(payload, peer, deadline).map_err(|error| match error {
            WaitError::Send(source) => RelayError::Send { peer, source },
            other => told(other, &self.server, start),
        })
    }

    /// Waits for a packet, at most until `deadline`, and returns its length and the peer. What does not fit into `buffer` is
    /// cut off.
    ///
    /// # Errors
    ///
    /// If the relay is gone, at the deadline, and when interrupted.
    pub fn recv_from(&self, buffer: &mut [u8], deadline: Instant) -> Result<(usize, SocketAddr), RelayError> {
        let start = clock::now();
        let (peer, bytes) = self.relay.receive(deadline).map_err(|error| told(error, &self.server, start))?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok((length, peer))
    }

    /// What was counted so far; `overflowed` has the packets that were dropped because nobody took them.
    #[must_use]
    pub fn stats(&self) -> TurnStats {
        let mut stats = self.relay.with_socket(|socket| socket.stats());
        stats.overflowed += self.relay.dropped();
        stats
    }
}

impl Drop for RelayedUdpSocket {
    fn drop(&mut self) {
        self.relay.close();
    }
}

/// The server's addresses, those of IPv4 first: relays of old know nothing else.
fn resolve(
    context: &MappingContext,
    server: &TurnServer,
    start: Instant,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, RelayError> {
    if let Some(address) = server.literal_address() {
        return Ok(vec![address]);
    }
    let failed = |source| RelayError::Resolve { host: server.host().to_owned(), source };
    let found = names::resolve(server.host(), server.port(), deadline, context.waits());
    let mut addresses = match found {
        Ok(addresses) if addresses.is_empty() => return Err(failed(std::io::ErrorKind::NotFound.into())),
        Ok(addresses) => addresses,
        Err(RunError::Io(error)) => return Err(failed(error)),
        Err(RunError::Interrupted) => return Err(RelayError::Interrupted),
        Err(RunError::TimedOut) => {
            return Err(RelayError::TimedOut { waited: clock::now().saturating_duration_since(start) });
        }
    };
    addresses.sort_by_key(SocketAddr::is_ipv6);
    Ok(addresses)
}

fn told(error: WaitError, server: &str, start: Instant) -> RelayError {
    let server = server.to_owned();
    match error {
        WaitError::TimedOut => RelayError::TimedOut { waited: clock::now().saturating_duration_since(start) },
        WaitError::Ended(Ended::Interrupted) => RelayError::Interrupted,
        WaitError::Ended(Ended::Failed(TurnFailure::Disconnected, Some(source))) => {
            RelayError::Connection { server, source }
        }
        WaitError::Ended(Ended::Failed(source, _)) => RelayError::Server { server, source },
        WaitError::Ended(Ended::Closed) => RelayError::Server { server, source: TurnFailure::Disconnected },
        WaitError::Send(source) => RelayError::Send { peer: SocketAddr::from(([0, 0, 0, 0], 0)), source },
    }
}
