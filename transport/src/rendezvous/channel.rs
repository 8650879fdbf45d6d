use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use nat_traversal::{MappedSocketAddr, MappingContext};

use super::{RendezvousError, RendezvousOffer};
use crate::{
    Interrupter,
    io::rendezvous::{self, Half},
};

/// What the two sides of a meeting learn after they have told each other where they are, from [`Rendezvous::channel`](crate::Rendezvous::channel).
/// Clones are the same one. It goes on to exist after the meeting, and does nothing then.
///
/// ```
/// use std::thread;
/// use nat_traversal::{MappingConfig, MappingContext};
/// use transport::{
///     ConnectOptions, Identity, Listener, Rendezvous, RendezvousOptions, Transport, TransportConfig,
/// };
///
/// let context = MappingContext::new(MappingConfig::new())?;
/// let peer = || -> Result<_, Box<dyn std::error::Error>> {
///     let transport = Transport::new(Identity::generate(), TransportConfig::default())?;
///     let listener = Listener::bind(&transport, "quic://127.0.0.1:0")?;
///     let rendezvous = Rendezvous::open(&transport, &RendezvousOptions::new())?;
///     Ok((transport, listener, rendezvous))
/// };
/// let (_transport, _listener, mine) = peer()?;
/// let (_other, _other_listener, yours) = peer()?;
/// let (my_channel, your_channel) = (mine.channel(), yours.channel());
/// // Both know a part, say so, and begin to meet.
/// let (my_offer, your_offer) = (my_channel.offer(), your_channel.offer());
/// thread::scope(|scope| {
///     scope.spawn(move || yours.connect(&my_offer, &ConnectOptions::new()).unwrap());
///     // What servers say later follows.
///     scope.spawn(|| my_channel.gather(&context, None, |offer| your_channel.receive(&offer)));
///     mine.connect(&your_offer, &ConnectOptions::new()).map(drop)
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct RendezvousChannel {
    half: Arc<Half>,
}

impl RendezvousChannel {
    pub(super) fn new(half: Arc<Half>) -> Self {
        Self { half }
    }

    /// What the peer is to be told: all that is known now. What comes later has the same keys and replaces it.
    #[must_use]
    pub fn offer(&self) -> RendezvousOffer {
        RendezvousOffer { offer: self.half.offer() }
    }

    /// Asks the servers of `context`, and routers for a TCP port, how our sockets are seen from outside, for UDP and TCP at the same
    /// time. Whenever something was learned `tell` is called with what the peer is to be told now, from any thread. Blocks until all have answered,
    /// at most [`MappingConfig::map_timeout`](nat_traversal::MappingConfig::map_timeout). Sockets are asked from until the
    /// meeting begins to connect, so begin with this before.
    ///
    /// # Errors
    ///
    /// [`RendezvousError::Interrupted`] by the interrupter, and [`RendezvousError::Closed`]. That servers do not answer is no
    /// error.
    pub fn gather(
        &self,
        context: &MappingContext,
        interrupter: Option<&Interrupter>,
        tell: impl Fn(RendezvousOffer) + Sync,
    ) -> Result<(), RendezvousError> {
        rendezvous::gather(&self.half, context, interrupter, &|| tell(self.offer()))
    }

    /// Meets the peer over that relay as well, as [`RendezvousOptions::relay`](crate::RendezvousOptions::relay) does. Gives what the peer is to be told
    /// now, unless there are two relays already.
    #[cfg(feature = "turn")]
    #[must_use = "the peer must be told"]
    pub fn add_relay(&self, relay: &crate::Relay) -> Option<RendezvousOffer> {
        self.half.add_relay(relay.socket(), relay.endpoint()).then(|| self.offer())
    }

    /// Says that nothing is learned any more: what is hopeless with what is known then fails at once, on the peer's side once it is told
    /// what this gives.
    #[must_use = "the peer must be told"]
    pub fn complete(&self) -> RendezvousOffer {
        self.half.complete();
        self.offer()
    }

    /// Takes in what the peer says after its first offer. Anything that does not belong to that is ignored.
    pub fn receive(&self, theirs: &RendezvousOffer) {
        self.half.receive(theirs.offer.clone());
    }

    /// Takes in that the peer is at this IP address, by the word of somebody else: who introduced the two and sees the peer come from
    /// there, say. Against a NAT that draws ports at random many packets go to such an address, and to none of which only the peer speaks; and the
    /// side that is [second](crate::RendezvousOptions::second) begins QUIC there before it hears the peer. Eight addresses count.
    pub fn vouch(&self, ip: IpAddr) {
        self.half.vouch(ip);
    }

    /// Whether servers were asked by UDP and none has answered in time, or before one did over TCP, as where UDP is blocked.
    #[must_use]
    pub fn udp_is_silent(&self) -> bool {
        self.half.udp_is_silent()
    }

    /// How the sockets for UDP are seen from outside as far as is known: the local address of each, and its others. They hold for as
    /// long as a NAT remembers, half a minute at least, and for [`RendezvousOptions::known`](crate::RendezvousOptions::known).
    #[must_use]
    pub fn mapped(&self) -> Vec<(SocketAddr, Vec<MappedSocketAddr>)> {
        self.half.seen()
    }
}
