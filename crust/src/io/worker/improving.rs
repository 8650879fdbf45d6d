//! Connections whose paths may have to change, and when each is tried to be given another one.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

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
    protocol::{
        detours::{Detoured as _, Detours},
        improvement::Attempted,
    },
};

/// What came of an attempt, and the path that it led to.
pub(crate) type Outcome = (Attempted, Option<Path>);

/// All of them, and what ends the attempts that are under way.
#[derive(Debug, Default)]
pub(super) struct Improving {
    detours: Detours<Detour>,
    running: BTreeMap<PublicKey, Arc<Interrupt>>,
}

impl Improving {
    /// One more connection is there.
    pub(super) fn add(&mut self, now: Instant, detour: Detour) {
        self.detours.add(now, detour, &());
    }

    /// The paths of some have changed, or they are cut off.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.detours.look_again(now, &());
        while let Some(peer) = self.detours.poll_useless() {
            self.running.get(&peer).into_iter().for_each(|running| running.interrupt());
        }
    }

    fn over(&mut self, now: Instant, peer: PublicKey, attempted: Attempted) {
        self.running.remove(&peer);
        self.detours.handle_end(now, peer, attempted, &());
    }

    fn poll_start(&mut self, now: Instant) -> Option<(Detour, Arc<Interrupt>)> {
        let detour = self.detours.poll_start(now, &())?;
        let interrupt = Arc::new(Interrupt::default());
        self.running.insert(detour.peer(), interrupt.clone());
        Some((detour, interrupt))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.detours.poll_timeout()
    }

    /// What is under way is about the old network.
    pub(super) fn handle_network_change(&mut self, now: Instant) {
        self.detours.handle_network_change(now);
        self.running.values().for_each(|running| running.interrupt());
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
