use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use transport::{Endpoint, PathKind, PublicKey, Scheme};

use crate::{
    event::{Events, ServiceEvent},
    io::{cache_file::CacheFile, clock, lock::Lock as _},
    protocol::{
        cache::Cache,
        kept::Kept,
        network_memory::{Met, NetworkId, NetworkMemory, Way},
    },
};

/// What a service remembers of peers, in memory and, if it is told where, on disk.
#[derive(Debug)]
pub(crate) struct Remembered {
    cache: Store<Cache>,
    networks: Store<NetworkMemory>,
    /// Holes that were open a moment ago.
    holes: Mutex<BTreeMap<PublicKey, (Endpoint, Instant)>>,
}

impl Remembered {
    /// Reads what is there: the endpoint cache, and beside it what worked from which network.
    pub(crate) fn open(file: Option<&Path>, events: &Events) -> Self {
        let beside = file.map(|file| {
            let mut name = file.file_name().unwrap_or_default().to_owned();
            name.push(".networks");
            file.with_file_name(name)
        });
        Self {
            cache: Store::open(file.map(CacheFile::new), events),
            networks: Store::open(beside.map(CacheFile::new), events),
            holes: Mutex::default(),
        }
    }

    /// Notes an endpoint that works.
    pub(crate) fn record(&self, endpoint: Endpoint) {
        self.cache.change(|now, cache| cache.record(now, endpoint));
    }

    /// Forgets an endpoint; tells whether it was there.
    pub(crate) fn remove(&self, endpoint: &Endpoint) -> bool {
        let was_there = self.cache.kept.hold().remove(endpoint);
        if was_there {
            self.cache.write(clock::unix_seconds(), |cache| {
                cache.remove(endpoint);
            });
        }
        was_there
    }

    /// Where a peer was reached, the latest first; before that, a hole that may still be open.
    pub(crate) fn of(&self, key: PublicKey) -> Vec<Endpoint> {
        let hole = self.holes.hold().get(&key).copied().filter(|(_, until)| clock::now() < *until);
        let cached: Vec<Endpoint> = self.cache.kept.hold().of(key).collect();
        hole.map(|(endpoint, _)| endpoint).into_iter().chain(cached).collect()
    }

    /// All endpoints that led somewhere, the latest first.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.cache.kept.hold().endpoints().collect()
    }

    /// Notes how a peer was met. `udp_silent`: servers were asked by UDP, and none answered.
    pub(crate) fn met(
        &self,
        network: Option<NetworkId>,
        peer: PublicKey,
        (kind, scheme, remote): Taken,
        took: Duration,
        udp_silent: bool,
    ) {
        self.note_hole(peer, (kind, scheme, remote));
        let Some(network) = network else { return };
        let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        let met = Met { way: way_of(kind), scheme, took, udp_silent };
        self.networks.change(|now, memory| memory.record(now, network, peer, met));
    }

    /// A connection with a peer goes another way now, which is what counts for the next: how it began took its time.
    pub(crate) fn moved(&self, network: Option<NetworkId>, peer: PublicKey, to: Taken) {
        self.note_hole(peer, to);
        // Whoever was met without us knowing is not known now either.
        let Some((network, before)) = network.zip(self.how(network, peer)) else { return };
        let met = Met { way: way_of(to.0), scheme: to.1, udp_silent: false, ..before };
        self.networks.change(|now, memory| memory.record(now, network, peer, met));
    }

    fn note_hole(&self, peer: PublicKey, (kind, scheme, remote): Taken) {
        let mut holes = self.holes.hold();
        if (kind, scheme) != (PathKind::Punched, Scheme::Quic) {
            holes.remove(&peer);
            return;
        }
        if holes.len() >= MAX_HOLES && !holes.contains_key(&peer) {
            holes.pop_first();
        }
        holes.insert(peer, (Endpoint::new(scheme, remote, peer), clock::now() + HOLE));
    }

    /// What worked works no more.
    pub(crate) fn not_met(&self, network: Option<NetworkId>, peer: PublicKey) {
        self.holes.hold().remove(&peer);
        let Some(network) = network else { return };
        if self.networks.kept.hold().forget(network, peer) {
            self.networks.write(clock::unix_seconds(), |memory| {
                memory.forget(network, peer);
            });
        }
    }

    /// How a peer was met from this network before.
    pub(crate) fn how(&self, network: Option<NetworkId>, peer: PublicKey) -> Option<Met> {
        self.networks.kept.hold().recall(clock::unix_seconds(), network?, peer)
    }
}

/// The way of a connection: by what kind, over what, and where to.
pub(crate) type Taken = (PathKind, Scheme, SocketAddr);

const fn way_of(kind: PathKind) -> Way {
    match kind {
        PathKind::Lan => Way::Lan,
        PathKind::Punched => Way::Punched,
        PathKind::Relayed => Way::Relayed,
        _ => Way::Direct,
    }
}

/// Something kept in memory, and in a file if there is one.
#[derive(Debug)]
struct Store<T> {
    kept: Mutex<T>,
    file: Option<CacheFile<T>>,
    events: Events,
}

impl<T: Kept> Store<T> {
    /// Reads what is there. What cannot be read is no reason not to start.
    fn open(file: Option<CacheFile<T>>, events: &Events) -> Self {
        let kept = file.as_ref().map_or_else(|| Ok(T::default()), CacheFile::read);
        let kept = kept.unwrap_or_else(|error| {
            events.tell(ServiceEvent::CacheUnusable { reason: crate::error_chain(&error) });
            T::default()
        });
        Self { kept: Mutex::new(kept), file, events: events.clone() }
    }

    /// Changes it, and writes it down if the change says so.
    fn change(&self, change: impl FnOnce(u64, &mut T) -> bool) {
        let now = clock::unix_seconds();
        let worth_writing = change(now, &mut self.kept.hold());
        if worth_writing {
            self.write(now, |_| ());
        }
    }

    fn write(&self, now: u64, change: impl FnOnce(&mut T)) {
        let Some(file) = &self.file else { return };
        let kept = self.kept.hold().clone();
        match file.update(now, &kept, change) {
            // What other processes learned meanwhile is of use here too.
            Ok(mut whole) => {
                // And what was noted here meanwhile is the latest of all.
                let mut kept = self.kept.hold();
                whole.merge(now, &kept);
                *kept = whole;
            }
            Err(error) => {
                self.events.tell(ServiceEvent::CacheUnusable { reason: crate::error_chain(&error) });
            }
        }
    }
}

/// NATs keep a UDP mapping that was used both ways open for two minutes and more (RFC 4787, section 4.3).
const HOLE: Duration = Duration::from_secs(120);
/// Peers met within that time.
const MAX_HOLES: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(480);

    fn peer() -> PublicKey {
        PublicKey::from_bytes([7; 32])
    }

    fn network() -> Option<NetworkId> {
        NetworkId::of(["192.168.1.7".parse().unwrap()])
    }

    fn at(kind: PathKind, text: &str) -> Taken {
        (kind, Scheme::Quic, text.parse().unwrap())
    }

    #[test]
    fn where_a_connection_has_moved_to_is_remembered_instead_of_where_it_began() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("endpoints");
        let remembered = Remembered::open(Some(&file), &Events::new());
        let relay = at(PathKind::Relayed, "203.0.113.10:61000");
        remembered.moved(network(), peer(), relay);
        assert_eq!(remembered.how(network(), peer()), None, "we have not met it");
        remembered.met(network(), peer(), relay, TOOK, true);
        assert_eq!(remembered.how(network(), peer()).unwrap().way, Way::Relayed);
        assert_eq!(remembered.of(peer()), []);

        let hole = at(PathKind::Punched, "198.51.100.2:4433");
        remembered.moved(network(), peer(), hole);
        let direct = Met { way: Way::Punched, scheme: Scheme::Quic, took: 480, udp_silent: false };
        assert_eq!(remembered.how(network(), peer()), Some(direct));
        assert_eq!(remembered.of(peer()), [Endpoint::new(Scheme::Quic, hole.2, peer())]);
        // The next process knows as well, but for the hole, which was this one's.
        let next = Remembered::open(Some(&file), &Events::new());
        assert_eq!((next.how(network(), peer()), next.of(peer())), (Some(direct), Vec::new()));

        remembered.moved(network(), peer(), relay);
        assert_eq!(remembered.how(network(), peer()).unwrap().way, Way::Relayed);
        assert_eq!(remembered.of(peer()), [], "the hole is closed");
    }
}
