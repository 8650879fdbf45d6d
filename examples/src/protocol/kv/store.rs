use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use crust::PublicKey;

use super::{
    ApiInput, Item, RouterInput, StoreInput,
    expiring::Expiring,
    record::{Record, RecordError},
    reference::Reference,
};

/// Has the values of this node, and copies of others for a while.
#[derive(Debug)]
pub struct Store<R: Reference> {
    kept: BTreeMap<String, BTreeMap<PublicKey, R::To<Record>>>,
    cached: Expiring<(String, PublicKey), R::To<Record>>,
    unwritten: VecDeque<R::To<Record>>,
    refused: u64,
}

impl<R: Reference> Store<R> {
    /// A store that has these, which are their authors'.
    #[must_use]
    pub fn new(records: Vec<Record>) -> Self {
        let mut store = Self {
            kept: BTreeMap::new(),
            cached: Expiring::new(MAX_CACHED),
            unwritten: VecDeque::new(),
            refused: 0,
        };
        for record in records {
            if store.keep(&R::new(record)).is_err() {
                store.refused += 1;
            }
        }
        store.unwritten.clear(); // they come from where it would be written
        store
    }

    /// Takes what is told to the store.
    pub fn handle(&mut self, now: Instant, input: StoreInput<R>, out: &mut Vec<Item<R>>) {
        match input {
            StoreInput::Keep { record, request } => {
                let result = self.keep(&record);
                self.refused += u64::from(matches!(result, Err(RecordError::Full)));
                out.extend(request.map(|request| Item::Api(ApiInput::Kept { request, result })));
            }
            StoreInput::Cache { record, time } => {
                let name = (record.key.clone(), record.author);
                // A copy that is here stays until its own time; without room there is none.
                let _ = self.cached.insert(now + time, name, record);
            }
            StoreInput::Look { ticket, key, wanted } => {
                self.handle_timeout(now);
                let records = self.look(&key, wanted);
                out.push(Item::Router(RouterInput::Looked { ticket, records }));
            }
            StoreInput::Count { request } => {
                let counts = vec![
                    ("stored", self.kept.len() as u64),
                    ("cached", self.cached.len() as u64),
                    ("refused_for_room", self.refused),
                ];
                out.push(Item::Api(ApiInput::Counted { request, counts }));
            }
        }
    }

    /// Lets go of what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.cached.expire(now);
    }

    /// When [`Store::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.cached.first()
    }

    /// The next record that was taken in, to be written down before anybody is told of it.
    pub fn poll_unwritten(&mut self) -> Option<R::To<Record>> {
        self.unwritten.pop_front()
    }

    fn keep(&mut self, record: &R::To<Record>) -> Result<(), RecordError> {
        let known = self.kept.get(&record.key);
        match known.and_then(|all| all.get(&record.author)) {
            Some(before) if before.version >= record.version => return Err(RecordError::Old),
            None if self.kept.len() >= MAX_STORED || known.is_some_and(|all| all.len() >= MAX_AUTHORS) => {
                return Err(RecordError::Full);
            }
            _ => {}
        }
        self.unwritten.push_back(record.clone());
        self.kept.entry(record.key.clone()).or_default().insert(record.author, record.clone());
        Ok(())
    }

    fn look(&self, key: &str, wanted: usize) -> Vec<R::To<Record>> {
        let stored = self.kept.get(key).into_iter().flat_map(BTreeMap::values);
        let copies = (key.to_owned(), PublicKey::from_bytes([0; 32]))..;
        let cached = self.cached.range(copies).take_while(|((name, _), _)| name == key);
        let mut found: Vec<R::To<Record>> = Vec::new();
        for record in stored.chain(cached.map(|(_, record)| record)) {
            if found.len() < wanted && found.iter().all(|one| one.author != record.author) {
                found.push(record.clone());
            }
        }
        found
    }
}

/// Names that are kept.
const MAX_STORED: usize = 100_000;
/// Authors of each.
pub(super) const MAX_AUTHORS: usize = 16;
const MAX_CACHED: usize = 4_096;
