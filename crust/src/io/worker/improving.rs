//! Connections whose paths may have to change, and when each is tried to be given another one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use transport::{Path, PublicKey};

use super::{Command, Turning};
use crate::{
    AttemptError,
    event::ServiceEvent,
    improving::Detour,
    io::{
        clock,
        introduce::{Interrupt, IntroductionError},
    },
    protocol::improvement::{Attempted, Improvement},
};

/// What came of an attempt, and the path that it led to.
pub(crate) type Outcome = (Attempted, Option<Path>);

/// Those with one peer.
#[derive(Debug)]
struct Detours {
    improvement: Improvement,
    open: VecDeque<Detour>,
    /// Whether one of them is to take another path, and whether one is cut off, as of the last look.
    is_wanted: bool,
    is_cut_off: bool,
    /// Ends the attempt that is under way.
    running: Option<Arc<Interrupt>>,
}

impl Detours {
    fn new(now: Instant) -> Self {
        let improvement = Improvement::new(now);
        Self { improvement, open: VecDeque::new(), is_wanted: false, is_cut_off: false, running: None }
    }

    fn look(&mut self, now: Instant) {
        self.open.retain(Detour::is_open);
        self.is_wanted = self.open.iter().any(Detour::is_wanted);
        let was_cut_off = self.is_cut_off;
        self.is_cut_off = self.open.iter().any(Detour::is_cut_off);
        if self.is_cut_off && !was_cut_off {
            let ends = self.improvement.handle_cut_off(now);
            if let Some(running) = self.running.as_ref().filter(|_| ends) {
                running.interrupt();
            }
        } else if was_cut_off && !self.is_cut_off {
            self.improvement.handle_answered_again();
        }
    }

    /// Whether it may be forgotten: there is no connection, and no failure that still counts.
    fn is_over(&self, now: Instant) -> bool {
        self.open.is_empty() && now >= self.improvement.forget_at()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.open.is_empty() {
            return Some(self.improvement.forget_at());
        }
        (self.is_wanted || self.improvement.is_running()).then(|| self.improvement.poll_timeout())
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Improving {
    peers: BTreeMap<PublicKey, Detours>,
}

impl Improving {
    /// One more connection is there.
    pub(super) fn add(&mut self, now: Instant, detour: Detour) {
        let peer = detour.connection.public_key();
        // Nobody tells that a connection has ended.
        self.look_again(now);
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, detours| !detours.open.is_empty());
        }
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            return tracing::debug!(%peer, "too many peers to look after; this one stays on its path");
        }
        let detours = self.peers.entry(peer).or_insert_with(|| Detours::new(now));
        let known = detours.open.iter_mut().find(|known| known.connection == detour.connection);
        match known {
            // What was told last, by whoever dialled, is the best that is known.
            Some(known) if detour.dialled || !known.dialled => *known = detour,
            Some(_) => {}
            None => {
                if detours.open.len() >= CONNECTIONS {
                    detours.open.pop_front();
                }
                detours.open.push_back(detour);
            }
        }
        detours.look(now);
    }

    /// The paths of some have changed, or they are cut off.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.peers.values_mut().for_each(|detours| detours.look(now));
    }

    fn over(&mut self, now: Instant, peer: PublicKey, attempted: Attempted) {
        let Some(detours) = self.peers.get_mut(&peer) else { return };
        detours.running = None;
        detours.improvement.handle_end(now, attempted);
        if attempted != Attempted::Led {
            // The next attempt is another's, if there is another.
            detours.open.rotate_left(usize::from(!detours.open.is_empty()));
        }
        detours.look(now);
    }

    /// The next attempt that is due, which counts as begun. Peers for whom nothing is to be done any more are forgotten in time.
    fn poll_start(&mut self, now: Instant) -> Option<(Detour, Arc<Interrupt>)> {
        for detours in self.peers.values_mut() {
            detours.improvement.handle_timeout(now);
            if detours.is_wanted && detours.improvement.is_due(now) {
                detours.look(now);
            }
        }
        self.peers.retain(|_, detours| !detours.is_over(now));
        if self.is_busy() {
            return None;
        }
        let is_due = |detours: &&mut Detours| detours.is_wanted && detours.improvement.is_due(now);
        let due = self.peers.values_mut().find(is_due)?;
        let cut_off = due.open.iter().find(|detour| detour.is_cut_off());
        let detour = cut_off.or_else(|| due.open.iter().find(|detour| detour.is_wanted()))?.clone();
        if cut_off.is_some() {
            due.improvement.start_rescue(now);
        } else {
            due.improvement.start(now);
        }
        let interrupt = Arc::new(Interrupt::default());
        due.running = Some(interrupt.clone());
        Some((detour, interrupt))
    }

    fn is_busy(&self) -> bool {
        self.peers.values().filter(|detours| detours.improvement.is_running()).count() >= AT_A_TIME
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let busy = self.is_busy();
        let looked_at = self.peers.values().filter(|detours| !busy || detours.improvement.is_running());
        looked_at.filter_map(Detours::poll_timeout).min()
    }

    /// What is under way is about the old network.
    pub(super) fn handle_network_change(&mut self, now: Instant) {
        for detours in self.peers.values_mut() {
            detours.improvement.handle_network_change(now);
            if let Some(running) = &detours.running {
                running.interrupt();
            }
        }
    }
}

impl Turning {
    pub(super) fn led(&mut self, peer: PublicKey, (attempted, path): Outcome) {
        self.improving.over(clock::now(), peer, attempted);
        if let Some(path) = path {
            let taken = (path.kind, path.scheme, path.remote);
            self.shared.remembered.moved(self.shared.network(), peer, taken);
            self.shared.events.tell(ServiceEvent::PathImproved { peer, path });
        }
    }

    /// Begins what is due, each on a thread that ends within seconds.
    pub(super) fn improve(&mut self, now: Instant) {
        while let Some((detour, interrupt)) = self.improving.poll_start(now) {
            let peer = detour.connection.public_key();
            let (shared, commands) = (self.shared.clone(), self.commands.clone());
            let work = move || {
                let outcome = match detour.lead(&shared, &interrupt) {
                    Ok(path) => (Attempted::Led, Some(path)),
                    Err(error) => {
                        let reason = crate::error_chain(&error);
                        tracing::debug!(%peer, reason, "a connection keeps its path for now");
                        (attempted(&error), None)
                    }
                };
                commands.give(Command::Led { peer, outcome });
            };
            self.help("crust-improve", work, |turning| turning.improving.over(now, peer, Attempted::NotMet));
        }
    }
}

fn attempted(error: &AttemptError) -> Attempted {
    match error {
        AttemptError::Introduction(IntroductionError::Refused(_)) => Attempted::NotMet,
        AttemptError::Introduction(_) => Attempted::NotIntroduced,
        _ => Attempted::NotMet,
    }
}

/// Peers that are looked after; each has some hundred bytes here.
const PEERS: usize = 256;
/// With one peer.
const CONNECTIONS: usize = 16;
/// Attempts under way, each on three threads for some seconds.
const AT_A_TIME: usize = 8;
