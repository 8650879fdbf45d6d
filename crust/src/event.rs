use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crossbeam::channel::Receiver;
use nat_traversal::PortMapMethod;
use transport::{ListenEndpoint, NamedEndpoint, Path, PublicKey};

use crate::io::latest::Latest;

/// Something that happened to a service beside the calls that are made on it; see
/// [`ServiceController::events`](crate::ServiceController::events).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ServiceEvent {
    /// An introducer calls us from now on when somebody asks it for our key.
    IntroducerAttached {
        /// The introducer.
        introducer: NamedEndpoint,
    },
    /// It does so no more; it is dialled again, after a while that grows with each failure.
    IntroducerLost {
        /// The introducer.
        introducer: NamedEndpoint,
        /// What happened, for a person to read.
        reason: String,
    },
    /// An introducer that was named has our own key, so that it cannot be asked: one of the two needs another key.
    IntroducerIsMyself {
        /// What was named.
        introducer: NamedEndpoint,
    },
    /// This host has come into another network. Streams over QUIC go on, those over TCP whose address is gone have ended;
    /// introducers, relays and routers are asked again.
    NetworkChanged {
        /// The addresses of this host now, loopback and link-local ones apart; none while it is in no network.
        addresses: Vec<IpAddr>,
    },
    /// A router forwards the port of a listener to us from now on: who dials `external` gets there, as long as no other NAT is behind
    /// that router, which a private address tells of. If there was another outside address for that listener, it leads there no more.
    PortMapped {
        /// Where we listen.
        place: ListenEndpoint,
        /// The address outside; contacts made from now on have it.
        external: SocketAddr,
        /// The router.
        router: IpAddr,
        /// How it was asked.
        method: PortMapMethod,
    },
    /// It does so no more, and is asked again and again.
    PortMapLost {
        /// Where we listen.
        place: ListenEndpoint,
        /// The address that leads here no more; contacts made from now on are without it.
        external: SocketAddr,
        /// What happened, for a person to read.
        reason: String,
    },
    /// No router forwards the port of a listener, nor those of others at the same address. That is told once; routers are asked again
    /// after some minutes, then ever more rarely, and when the network changes.
    PortMapFailed {
        /// Where we listen.
        place: ListenEndpoint,
        /// What each way of asking came to, for a person to read.
        reason: String,
    },
    /// The DHT was told where this service is: so many nodes have it, and whoever knows this service's key finds it there. It is told again each
    /// hour, and when an address changes.
    DhtPublished {
        /// How many nodes have it.
        nodes: u32,
    },
    /// The DHT could not be told where this service is. That is said once; it is tried again, after half a minute at first, then
    /// ever more rarely, and when the network changes.
    DhtUnusable {
        /// What happened, for a person to read.
        reason: String,
    },
    /// A peer asked for an introduction, and it was turned away or came to nothing.
    IntroductionFailed {
        /// Who asked, as far as it has proved who it is.
        peer: Option<PublicKey>,
        /// What happened, for a person to read.
        reason: String,
    },
    /// A peer that was introduced is connected; its stream comes out of `accept`.
    Introduced {
        /// The peer.
        peer: PublicKey,
    },
    /// A connection goes on over another path, with all its streams: one over a relay over a direct path, or one that was cut off over
    /// whatever was found.
    PathImproved {
        /// The peer.
        peer: PublicKey,
        /// How its bytes travel now.
        path: Path,
    },
    /// A relay gives us no address; peers are met without it, or over the next one.
    RelayUnusable {
        /// The server, without credentials.
        server: String,
        /// What happened, for a person to read.
        reason: String,
    },
    /// The configuration file has changed, and what it says is taken from now on.
    ConfigReloaded {
        /// The settings that were applied, by their names.
        applied: Vec<&'static str>,
        /// Those that count at the next start.
        waiting: Vec<&'static str>,
    },
    /// The configuration file has changed and is no good; the settings stay as they are.
    ConfigUnusable {
        /// What is wrong, with the line, for a person to read.
        reason: String,
    },
    /// The endpoint cache cannot be read or kept on disk; the service goes on without.
    CacheUnusable {
        /// What happened, for a person to read.
        reason: String,
    },
}

#[cfg(feature = "dht")]
impl ServiceEvent {
    /// Whether the contact of this service may be another one since.
    const fn moves_us(&self) -> bool {
        matches!(
            self,
            Self::IntroducerAttached { .. }
                | Self::IntroducerLost { .. }
                | Self::NetworkChanged { .. }
                | Self::PortMapped { .. }
                | Self::PortMapLost { .. }
        )
    }
}

/// Where events are put. When nobody takes them the oldest are forgotten.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    latest: Latest<ServiceEvent>,
    receiver: Arc<Receiver<ServiceEvent>>,
    /// Who is told when this service is reached elsewhere.
    #[cfg(feature = "dht")]
    directory: Arc<std::sync::OnceLock<crate::io::dht::Directory>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        let (latest, receiver) = Latest::new(MOST_KEPT);
        Self {
            latest,
            receiver: Arc::new(receiver),
            #[cfg(feature = "dht")]
            directory: Arc::default(),
        }
    }

    /// Has the directory told of every event by which this service is reached elsewhere.
    #[cfg(feature = "dht")]
    pub(crate) fn tell_of_moves(&self, directory: crate::io::dht::Directory) {
        let _ = self.directory.set(directory);
    }

    pub(crate) fn tell(&self, event: ServiceEvent) {
        tracing::debug!(?event, "service");
        #[cfg(feature = "dht")]
        if let Some(directory) = self.directory.get()
            && event.moves_us()
        {
            directory.changed(matches!(event, ServiceEvent::NetworkChanged { .. }));
        }
        self.latest.put(event);
    }

    pub(crate) fn receiver(&self) -> &Receiver<ServiceEvent> {
        &self.receiver
    }
}

/// More than anybody has to read at once; each has a few hundred bytes.
const MOST_KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_give_way() {
        let events = Events::new();
        for number in 0..=MOST_KEPT {
            events.tell(ServiceEvent::CacheUnusable { reason: number.to_string() });
        }
        assert_eq!(events.receiver().len(), MOST_KEPT);
        let first = events.receiver().recv().unwrap();
        assert!(matches!(first, ServiceEvent::CacheUnusable { reason } if reason == "1"));
    }
}
