//! The one thread: waits, reads, feeds the machine, sends what it says and queues what it learned.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use crate::config::BeaconConfig;
use crate::error::BeaconError;
use crate::io::changes::Changes;
use crate::io::mailbox::{Data, Mailbox};
use crate::io::network::Network;
use crate::io::queue::Outlet;
use crate::io::{clock, entropy};
use crate::message::Message;
use crate::protocol::{Discovery, DiscoveryConfig};

/// A running thread and the ways to talk to it.
pub(crate) struct Started {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) port: u16,
    pub(crate) max_data_bytes: usize,
    pub(crate) thread: JoinHandle<()>,
}

/// Opens everything, so that whatever fails is an error here, and starts the thread; without data it only listens.
pub(crate) fn start(
    config: BeaconConfig,
    data: Option<&[u8]>,
    outlet: Outlet,
) -> Result<Started, BeaconError> {
    config.check()?;
    let machine =
        DiscoveryConfig { id_bytes: config.id_bytes, period: config.period, secret: config.secret.clone() };
    let seed = entropy::seed().ok_or(BeaconError::Entropy)?;
    let mut discovery = match data {
        Some(data) => Discovery::new(machine, seed, data)?,
        None => Discovery::listening(machine, seed)?,
    };

    let thread_error = |source| BeaconError::Thread { source };
    let poll = Poll::new().map_err(thread_error)?;
    let waker = Waker::new(poll.registry(), WAKE).map_err(thread_error)?;
    let changes = Changes::subscribe(poll.registry(), CHANGES);
    let mut network = Network::open(config, poll.registry().try_clone().map_err(thread_error)?)?;
    let links = network.refresh().map_err(|source| BeaconError::Interfaces { source })?;
    if links.is_empty() {
        return Err(BeaconError::NoInterface { warnings: network.warnings() });
    }
    let now = clock::now();
    discovery.set_clock(now, clock::time());
    discovery.set_links(now, links);

    let mailbox = Arc::new(Mailbox::new(waker));
    let (port, max_data_bytes) = (network.port(), discovery.max_data_bytes());
    let read_list = now + changes.reading_pause();
    let shared = Arc::clone(&mailbox);
    let worker =
        Worker { poll, changes, network, discovery, outlet, mailbox: shared, read_list, list_read: now };
    worker.tell();
    let thread = std::thread::Builder::new().name("beacon-io".into()).spawn(move || worker.run());
    Ok(Started { mailbox, port, max_data_bytes, thread: thread.map_err(thread_error)? })
}

struct Worker {
    poll: Poll,
    changes: Changes,
    network: Network,
    discovery: Discovery,
    outlet: Outlet,
    mailbox: Arc<Mailbox>,
    /// When the list of interfaces was last read, and when it is to be read next.
    list_read: Instant,
    read_list: Instant,
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_A_TURN);
        let mut more_to_read = false;
        loop {
            let timeout = if more_to_read { Some(Duration::ZERO) } else { self.timeout() };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    tracing::warn!(%error, "the beacon ends: the system cannot wait for its sockets");
                    return;
                }
                _ => {}
            }
            for event in &events {
                match event.token() {
                    WAKE => {}
                    CHANGES => self.interfaces_changed(),
                    token => self.network.mark_ready(token),
                }
            }
            if !self.turn(&mut more_to_read) {
                break;
            }
        }
        self.discovery.close();
        self.send();
    }

    /// One turn; `false` if the last controller is gone.
    fn turn(&mut self, more_to_read: &mut bool) -> bool {
        let requests = self.mailbox.take();
        if requests.close {
            return false;
        }
        let now = clock::now();
        self.discovery.set_clock(now, clock::time());
        match requests.data {
            Some(Data::Announced(data)) => {
                self.discovery.set_data(now, &data).expect("the controller has checked the size");
            }
            Some(Data::Hidden) => self.discovery.hide(),
            None => {}
        }
        if let Some(period) = requests.period {
            self.discovery.set_period(now, period);
        }
        if requests.search {
            self.discovery.search(now);
        }
        let discovery = &mut self.discovery;
        *more_to_read =
            self.network.receive(|link, source, bytes| discovery.handle_datagram(now, link, source, bytes));
        if self.read_list <= now {
            self.list_read = now;
            self.read_list = now + self.changes.reading_pause();
            if let Ok(links) = self.network.refresh() {
                self.discovery.set_links(now, links);
            }
        }
        self.discovery.handle_timeout(now);
        self.send();
        while let Some(event) = self.discovery.poll_event() {
            tracing::debug!(news = ?event.news, source = %event.source, interface = event.link.name);
            self.outlet.push(Message::new(event));
        }
        self.tell();
        true
    }

    fn send(&mut self) {
        while let Some(transmit) = self.discovery.poll_transmit() {
            tracing::trace!(link = transmit.link.0, destination = ?transmit.destination, "sending");
            self.network.send(&transmit);
        }
    }

    /// Has the list of interfaces read soon: changes come in swarms, and one reading serves all of a swarm.
    fn interfaces_changed(&mut self) {
        self.changes.drain();
        self.read_list = self.read_list.min(self.list_read + LIST_PAUSE);
    }

    fn timeout(&self) -> Option<Duration> {
        let due = self.discovery.poll_timeout().map_or(self.read_list, |due| due.min(self.read_list));
        Some(due.saturating_duration_since(clock::now()))
    }

    fn tell(&self) {
        let mut stats = self.network.stats();
        stats.refusals = self.discovery.refusals();
        stats.messages_dropped = self.outlet.dropped();
        let warnings = self.network.warnings();
        self.mailbox.report(|report| {
            report.stats = stats;
            report.warnings = warnings;
        });
    }
}

const WAKE: Token = Token(0);
const CHANGES: Token = Token(1);

/// Events taken from the system at once; more wait for the next turn.
const EVENTS_A_TURN: usize = 64;

/// The least time between two readings of the interface list.
const LIST_PAUSE: Duration = Duration::from_millis(50);
