use crust::PublicKey;

use crate::protocol::kv::{
    Record, Reference,
    message::{Ask, WHOLE, Way},
    store::MAX_AUTHORS,
};

/// A query that waits for answers.
#[derive(Debug)]
pub(super) struct Pending<R: Reference> {
    pub(super) asker: Asker,
    pub(super) found: Vec<R::To<Record>>,
    wanted: usize,
    missing: Missing,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    User { request: u64 },
    Peer { key: PublicKey, id: u64 },
}

/// What is still to come.
#[derive(Debug)]
enum Missing {
    /// Answers of these, one of each.
    Peers(Vec<PublicKey>),
    /// So much of [`WHOLE`], of whoever has it now.
    Shares(u64),
}

impl<R: Reference> Pending<R> {
    /// Nobody is asked yet.
    pub(super) fn new(asker: Asker, ask: &Ask, found: Vec<R::To<Record>>) -> Self {
        Self { asker, found, wanted: wanted(ask), missing: Missing::Peers(Vec::new()) }
    }

    /// These are asked, and answer by this way.
    pub(super) fn expect(&mut self, peers: &[PublicKey], way: &Way) {
        self.missing = match way {
            Way::Far { .. } if !peers.is_empty() => Missing::Shares(WHOLE),
            _ => Missing::Peers(peers.to_vec()),
        };
    }

    /// Whether it waits for an answer of this peer by name.
    pub(super) fn waits_for(&self, peer: &PublicKey) -> bool {
        matches!(&self.missing, Missing::Peers(peers) if peers.contains(peer))
    }

    /// Notes that an answer has come; tells whether it was waited for.
    pub(super) fn note(&mut self, from: &PublicKey, share: u64) -> bool {
        match &mut self.missing {
            Missing::Peers(peers) => {
                let before = peers.len();
                peers.retain(|peer| peer != from);
                peers.len() < before
            }
            Missing::Shares(rest) => {
                *rest = rest.saturating_sub(share);
                true
            }
        }
    }

    /// Adds a value, if it is of a new author and not enough are there.
    pub(super) fn add(&mut self, record: R::To<Record>) {
        if self.found.len() < self.wanted && self.found.iter().all(|one| one.author != record.author) {
            self.found.push(record);
        }
    }

    /// Whether there is nothing more to get.
    pub(super) fn is_done(&self) -> bool {
        let none = match &self.missing {
            Missing::Peers(peers) => peers.is_empty(),
            Missing::Shares(rest) => *rest == 0,
        };
        none || self.found.len() >= self.wanted
    }

    /// Whether two thirds have come home: of the rest, some may be lost. Shares do not divide evenly, so it is not exact.
    pub(super) fn is_nearly_done(&self) -> bool {
        matches!(self.missing, Missing::Shares(rest) if rest <= WHOLE / 3 + WHOLE / 1_000)
    }
}

/// How many values a query waits for.
pub(super) fn wanted(ask: &Ask) -> usize {
    usize::from(ask.wanted).clamp(1, MAX_AUTHORS)
}
