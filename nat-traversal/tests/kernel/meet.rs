//! One meeting of two peers on hosts of a laboratory.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nat_lab::Lab;
use nat_traversal::protocol::stun::Message;
use nat_traversal::{
    MappedSocketAddr, MappedTcpSocket, MappedUdpSocket, MappingConfig, MappingContext, PortRule,
    PubRendezvousInfo, PunchError, PunchOptions, PunchedUdpSocket, gen_rendezvous_info, tcp_punch_hole,
};

use crate::cells::{Cell, Scheme, Wanted};

/// How a meeting ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both have the hole after this long, and bytes pass both ways.
    Direct(Duration),
    /// Both were told at once that it cannot be.
    Hopeless,
    /// Not both have the hole; why.
    Failed(String),
}

/// Lets the peers of a cell meet once.
pub(crate) fn meet(lab: &Lab, cell: &Cell) -> Ended {
    let both = Barrier::new(2);
    let heard = AtomicU32::new(0);
    let (to_b, from_a) = channel();
    let (to_a, from_b) = channel();
    let [host_a, host_b] = cell.hosts();
    let peer = |tell, told, wait| Peer {
        both: &both,
        heard: &heard,
        tell,
        told,
        wait,
        skew: cell.skew,
        names_addresses: !matches!(cell.wanted, Wanted::Never(_)),
        patience: cell.patience() + cell.skew,
    };
    let peers = [(host_a, peer(to_b, from_b, Duration::ZERO)), (host_b, peer(to_a, from_a, cell.skew))];
    let ends = thread::scope(|scope| {
        let ends = peers.map(|(host, peer)| {
            scope.spawn(move || {
                lab.node(host).enter(|| {
                    let _span = tracing::info_span!("peer", host).entered();
                    match cell.scheme {
                        Scheme::Udp => peer.over_udp(),
                        Scheme::Tcp => peer.over_tcp(),
                    }
                })
            })
        });
        ends.map(|end| end.join().unwrap())
    });
    match ends {
        [Ok(a), Ok(b)] if heard.load(Ordering::Relaxed) == 2 => Ended::Direct(a.max(b)),
        [Ok(_), Ok(_)] => Ended::Failed("bytes do not pass".into()),
        [Err(PunchError::Hopeless(_)), Err(PunchError::Hopeless(_))] => Ended::Hopeless,
        [a, b] => Ended::Failed(format!("{} | {}", describe(a), describe(b))),
    }
}

/// Addresses and what is known of their ports.
fn shown(endpoints: &[MappedSocketAddr]) -> Vec<(SocketAddr, PortRule)> {
    endpoints.iter().map(|endpoint| (endpoint.addr, endpoint.ports)).collect()
}

fn describe(end: Result<Duration, PunchError>) -> String {
    match end {
        Ok(took) => format!("ok after {} ms", took.as_millis()),
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            format!("{error}{}", source.unwrap_or_default())
        }
    }
}

struct Peer<'a> {
    both: &'a Barrier,
    heard: &'a AtomicU32,
    tell: Sender<PubRendezvousInfo>,
    told: Receiver<PubRendezvousInfo>,
    /// How much later it begins than the info is there, and the other one at most.
    wait: Duration,
    skew: Duration,
    /// That it fails is news.
    names_addresses: bool,
    patience: Duration,
}

impl Peer<'_> {
    fn over_udp(self) -> Result<Duration, PunchError> {
        let context = context();
        let mapped = MappedUdpSocket::new(&context).unwrap();
        let known = mapped.endpoints.clone();
        let (secret, info) = gen_rendezvous_info(mapped.endpoints);
        let (theirs, begun) = self.exchange(info);
        let deadline = begun + self.patience;
        // The test itself carries the addresses.
        let options = PunchOptions::new().spray_unvouched(true);
        let punched =
            PunchedUdpSocket::punch_hole_with(mapped.socket, secret, &theirs, &context, &options, deadline)
                .inspect_err(|error| {
                // What a strategy was chosen by, for those who ask why it failed.
                if matches!(error, PunchError::TimedOut { .. }) && self.names_addresses {
                    eprintln!("{:?} and {:?}: {error}", shown(&known), shown(theirs.endpoints()));
                }
            })?;
        let took = begun.elapsed(); // nothing if it has not come yet
        self.talk(&punched.socket, punched.peer_addr);
        Ok(took)
    }

    fn over_tcp(self) -> Result<Duration, PunchError> {
        let context = context();
        let mapped = MappedTcpSocket::new(&context).unwrap();
        let (secret, info) = gen_rendezvous_info(mapped.endpoints);
        let (theirs, begun) = self.exchange(info);
        let mut stream = tcp_punch_hole(mapped.socket, secret, &theirs, &context, begun + self.patience)?;
        let took = begun.elapsed(); // nothing if it has not come yet
        let mut word = [0; HELLO.len()];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if stream.write_all(HELLO).and_then(|()| stream.read_exact(&mut word)).is_ok() && word == *HELLO {
            self.heard.fetch_add(1, Ordering::Relaxed);
        }
        Ok(took)
    }

    /// Swaps infos with the other; returns when the later one begins.
    fn exchange(&self, info: PubRendezvousInfo) -> (PubRendezvousInfo, Instant) {
        self.tell.send(info).unwrap();
        let theirs = self.told.recv().unwrap();
        self.both.wait();
        let both_begun = Instant::now() + self.skew;
        thread::sleep(self.wait);
        (theirs, both_begun)
    }

    /// Sends until both have heard the other, since datagrams get lost.
    fn talk(&self, socket: &UdpSocket, peer: SocketAddr) {
        let deadline = Instant::now() + PATIENCE;
        socket.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let mut counted = false;
        while self.heard.load(Ordering::Relaxed) < 2 && Instant::now() < deadline {
            let _ = socket.send_to(HELLO, peer);
            let mut buffer = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let word = &buffer[..length];
                if !counted && from == peer && word == HELLO {
                    counted = true;
                    self.heard.fetch_add(1, Ordering::Relaxed);
                }
                assert!(word == HELLO || Message::decode(word).is_ok(), "late packets of the punch are STUN");
            }
        }
    }
}

/// With two servers, as is usual.
fn context() -> MappingContext {
    let [first, second] = Lab::SERVER;
    let config =
        MappingConfig::new().port_map(false).server((first, 3_478).into()).server((second, 3_479).into());
    MappingContext::new(config).unwrap()
}

const HELLO: &[u8; 5] = b"hello";

/// Until bytes have passed a hole, some of them lost.
const PATIENCE: Duration = Duration::from_secs(3);
