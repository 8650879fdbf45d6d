//! What a node does in its own time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    Gossip, Kind, Message,
    message::{Entries, Spread},
    summary::Dot,
};

impl Gossip {
    /// Gives own entries to the relays of this attempt. Where this node is one of them, it keeps them to spread.
    pub(super) fn hand_over(&mut self, now: Instant, attempt: u32, seqs: BTreeSet<u64>) {
        let [first, second] = self.rotation.relays(attempt).map(str::to_owned);
        let kinds = if attempt == 0 { [Kind::Relay, Kind::Standby] } else { [Kind::Relay; 2] };
        let mut told = BTreeSet::new();
        for (relay, kind) in [first, second].into_iter().zip(kinds) {
            if !told.insert(relay.clone()) {
                continue;
            }
            if relay != self.me.node {
                self.send(&relay, kind, self.own_entries(&seqs));
                continue;
            }
            let wait = if kind == Kind::Relay { self.settings.batch } else { self.settings.standby };
            for seq in &seqs {
                let dot = Dot { origin: self.me.clone(), seq: *seq };
                self.gathered.entry(dot).or_insert(now + wait);
            }
        }
    }

    /// Gives own entries that nobody was seen to spread to other relays.
    pub(super) fn ask_others(&mut self, now: Instant, times: u32) {
        self.ask_again = None;
        if !self.unspread.is_empty() {
            let seqs = self.unspread.iter().take(MAX_ENTRIES_PER_MESSAGE).copied().collect();
            self.hand_over(now, times, seqs);
            let wait = self.settings.ask_again * (1 << times.min(MAX_DOUBLINGS));
            self.ask_again = Some((now + wait, times.saturating_add(1)));
        }
    }

    /// Sends everything that was gathered, and what is unacknowledged, to everyone who may lack it.
    pub(super) fn send_batch(&mut self, now: Instant) {
        let peers = &self.peers;
        self.relayed.retain(|dot, until| *until > now && peers.values().any(|peer| !peer.known.has(dot)));
        let until = now + self.settings.relay_for;
        let fresh: BTreeMap<Dot, Instant> =
            std::mem::take(&mut self.gathered).into_keys().map(|dot| (dot, until)).collect();
        if fresh.keys().any(|dot| dot.origin == self.me) {
            // Perhaps nobody hears it: others are asked unless someone acknowledges.
            self.ask_again = Some((now + 2 * self.settings.ask_again, 1));
        }
        let peers: Vec<String> = self.peers.keys().cloned().collect();
        self.relayed.extend(fresh.clone());
        for name in peers {
            if fresh.keys().any(|dot| !self.peers[&name].known.has(dot)) {
                self.send_relayed(now, &name, Kind::Batch);
            }
        }
    }

    /// Sends again to those who were silent for too long.
    pub(super) fn send_again(&mut self, now: Instant) {
        let due = |at: Option<(Instant, Duration)>| at.is_some_and(|(at, _)| at <= now);
        let names: Vec<String> = self
            .peers
            .iter()
            .filter(|(_, peer)| due(peer.send_again))
            .map(|(name, _)| name.clone())
            .collect();
        if !names.is_empty() {
            self.relayed.retain(|_, until| *until > now);
        }
        for name in names {
            let peer = self.peers.get_mut(&name).expect("just listed");
            let (_, wait) = peer.send_again.take().expect("it is due");
            if self.relayed.keys().any(|dot| !self.peers[&name].known.has(dot)) {
                self.send_relayed(now, &name, Kind::Repair);
                let peer = self.peers.get_mut(&name).expect("just listed");
                peer.send_again = Some((now + 2 * wait, 2 * wait));
            }
        }
    }

    fn send_relayed(&mut self, now: Instant, name: &str, kind: Kind) {
        let known = &self.peers[name].known;
        let dots: Vec<&Dot> = self.relayed.keys().filter(|dot| !known.has(dot)).collect();
        let mut entries = Entries::new();
        // The newest matter most; older ones were sent before.
        for dot in newest(dots, &self.relayed) {
            if let Some(entry) = self.store.get(dot) {
                entries.entry(dot.origin.clone()).or_default().push((dot.seq, entry));
            }
        }
        let again = self.settings.send_again;
        let peer = self.peers.get_mut(name).expect("just used");
        peer.send_again.get_or_insert((now + again, again));
        self.send(name, kind, entries);
    }

    /// Notes what others need not spread any more: another has done it, or this node did and was heard.
    pub(super) fn see_spread(&mut self, from: &str, spread: &Spread) {
        let by_other = |dot: &Dot| spread.get(&dot.origin).is_some_and(|seqs| seqs.contains(&dot.seq));
        self.gathered.retain(|dot, _| !by_other(dot));
        let (me, relayed, known) = (&self.me, &self.relayed, &self.peers[from].known);
        self.unspread.retain(|seq| {
            let dot = Dot { origin: me.clone(), seq: *seq };
            !(by_other(&dot) || relayed.contains_key(&dot) && known.has(&dot))
        });
        if self.unspread.is_empty() {
            self.ask_again = None;
        }
    }

    /// Sends a peer what its summary lacks, unless it is so new that it must be on its way.
    pub(super) fn answer_digest(&mut self, now: Instant, name: &str) {
        let Some(settled) = now.checked_sub(self.settings.ask_again) else { return };
        let missing = self.store.missing(&self.peers[name].known, settled, MAX_ENTRIES_PER_MESSAGE);
        if !missing.is_empty() {
            self.send(name, Kind::Repair, missing);
        }
    }

    /// Asks a peer soon for what it has and this node lacks; it may be on its way.
    pub(super) fn compare_soon(&mut self, now: Instant, name: &str) {
        if !self.peers[name].known.within(self.store.have()) {
            self.digest_at = self.digest_at.min(now + self.settings.ask_again);
        }
    }

    pub(super) fn send_digest(&mut self, now: Instant) {
        let have = self.store.have();
        self.random = self.random.wrapping_add(1);
        let number = random(self.random);
        // Someone who has what is missing here; now and then anyone, as that one may only pretend.
        let mut choice: Vec<&String> =
            self.peers.iter().filter(|(_, peer)| !peer.known.within(have)).map(|(name, _)| name).collect();
        let behind = !choice.is_empty();
        if !behind || number.is_multiple_of(3) {
            choice = self.peers.keys().collect();
        }
        let place = (number >> 8) % choice.len() as u64;
        let name = choice[usize::try_from(place).expect("less than a length")].clone();
        let wait = if behind { self.settings.ask_again } else { self.digest_wait };
        self.digest_at = now + self.jittered(wait);
        self.digest_wait = (2 * self.digest_wait).min(self.settings.digest_idle);
        self.send(&name, Kind::Digest, Entries::new());
    }

    /// Tells those whose batches came that they did.
    pub(super) fn acknowledge(&mut self, now: Instant) {
        let due = self.peers.iter().filter(|(_, peer)| peer.acknowledge_at.is_some_and(|at| at <= now));
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.send(&name, Kind::Digest, Entries::new());
        }
    }

    /// Something new was learned: it is worth comparing notes.
    pub(super) fn news(&mut self, now: Instant) {
        self.digest_wait = self.settings.digest;
        if self.digest_at > now + 2 * self.digest_wait {
            self.digest_at = now + self.jittered(self.digest_wait);
        }
    }

    /// From three quarters to five quarters of a time, so that nodes do not act in step.
    pub(super) fn jittered(&mut self, time: Duration) -> Duration {
        self.random = self.random.wrapping_add(1);
        let share = u32::try_from(random(self.random) % 512).expect("less than 512");
        time * 3 / 4 + time * share / 1_024
    }

    fn own_entries(&self, seqs: &BTreeSet<u64>) -> Entries {
        let value = |seq: &u64| {
            let dot = Dot { origin: self.me.clone(), seq: *seq };
            self.store.get(&dot).map(|entry| (*seq, entry))
        };
        Entries::from([(self.me.clone(), seqs.iter().filter_map(value).collect())])
    }

    fn send(&mut self, name: &str, kind: Kind, entries: Entries) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.acknowledge_at = None;
        let mut spread = Spread::new();
        for dot in self.relayed.keys().filter(|_| kind == Kind::Batch) {
            spread.entry(dot.origin.clone()).or_default().insert(dot.seq);
        }
        let (term, have) = (self.rotation.term(), self.store.have().clone());
        let message = Message { kind, term, have, entries, spread };
        self.transmits.push_back((name.to_owned(), message));
    }
}

/// At most as many as fit a message, those that are looked after longest first.
fn newest<'a>(mut dots: Vec<&'a Dot>, relayed: &BTreeMap<Dot, Instant>) -> Vec<&'a Dot> {
    if dots.len() > MAX_ENTRIES_PER_MESSAGE {
        dots.sort_by_key(|dot| std::cmp::Reverse(relayed[*dot]));
        dots.truncate(MAX_ENTRIES_PER_MESSAGE);
    }
    dots
}

/// A well-mixed number of a counter (the finaliser of splitmix64).
const fn random(counter: u64) -> u64 {
    let mut mixed = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Some 60 KiB as JSON.
const MAX_ENTRIES_PER_MESSAGE: usize = 4_096;
/// An attempt is at most 32 times later than the first.
const MAX_DOUBLINGS: u32 = 2;
