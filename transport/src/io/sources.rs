//! What the poll watches, by token, and when each wants to be looked at without having been ready.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use mio::Token;

use super::{
    acceptor::TcpAcceptor,
    alarm::Alarm,
    chore::Task,
    ending::Ending,
    handshake::TcpHandshake,
    tcp::{ReaderEnd, WriterEnd},
    udp::UdpSocket,
};

/// One registered socket.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Acceptor(Arc<TcpAcceptor>),
    Chore(Arc<Task>),
    Ending(Arc<Ending>),
    Handshake(Arc<TcpHandshake>),
    Reader(Arc<ReaderEnd>),
    Udp(Arc<UdpSocket>),
    Writer(Arc<WriterEnd>),
}

/// The table of all sources and their timers.
///
/// mio delivers events of a batch even after a source was deregistered, so a token carries a generation and an old one
/// finds nothing.
#[derive(Debug)]
pub(crate) struct Sources {
    entries: Vec<Entry>,
    /// How many of them have a source, and how often that has changed.
    filled: usize,
    changes: u64,
    /// Told when there is more to watch than one source.
    alarm: Arc<Alarm>,
    free: Vec<usize>,
    timers: BTreeSet<(Instant, usize)>,
}

#[derive(Debug, Default)]
struct Entry {
    generation: usize,
    source: Option<Source>,
    timer: Option<Instant>,
}

impl Sources {
    pub(crate) fn new(alarm: Arc<Alarm>) -> Self {
        Self { entries: Vec::new(), filled: 0, changes: 0, alarm, free: Vec::new(), timers: BTreeSet::new() }
    }

    /// Makes room for a source; it is found only after `fill`.
    pub(crate) fn reserve(&mut self) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            self.entries.len() - 1
        });
        self.token(index)
    }

    pub(crate) fn fill(&mut self, token: Token, source: Source) {
        let Some(entry) = self.entry_mut(token) else { return };
        if entry.source.replace(source).is_none() {
            self.filled += 1;
            self.changes += 1;
            self.alarm.wake_receiver();
        }
    }

    pub(crate) fn find(&self, token: Token) -> Option<Source> {
        let entry = self.entries.get(token.0 & INDEX_MASK)?;
        (entry.generation == token.0 >> INDEX_BITS).then(|| entry.source.clone())?
    }

    /// Forgets a source; tells whether it was still there, so that exactly one caller deals with its end.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Source> {
        self.set_timer(token, None);
        let index = token.0 & INDEX_MASK;
        let entry = self.entry_mut(token)?;
        let source = entry.source.take();
        entry.generation = (entry.generation + 1) & (usize::MAX >> INDEX_BITS);
        self.filled -= usize::from(source.is_some());
        self.changes += 1;
        self.free.push(index);
        source
    }

    /// Sets when the source is to be looked at, ready or not.
    pub(crate) fn set_timer(&mut self, token: Token, timer: Option<Instant>) {
        let index = token.0 & INDEX_MASK;
        let Some(entry) = self.entry_mut(token) else { return };
        let old = std::mem::replace(&mut entry.timer, timer);
        if let Some(old) = old {
            self.timers.remove(&(old, index));
        }
        if let Some(timer) = timer {
            self.timers.insert((timer, index));
        }
    }

    /// How often a source has come or gone.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The only source, if it is a UDP socket.
    pub(crate) fn only_socket(&self) -> Option<Arc<UdpSocket>> {
        if self.filled != 1 {
            return None;
        }
        match self.entries.iter().find_map(|entry| entry.source.as_ref())? {
            Source::Udp(socket) => Some(socket.clone()),
            _ => None,
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|&(timer, _)| timer)
    }

    /// Takes one timer that has passed.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<Token> {
        let &(timer, index) = self.timers.first()?;
        if timer > now {
            return None;
        }
        self.timers.pop_first();
        self.entries[index].timer = None;
        Some(self.token(index))
    }

    pub(crate) fn all(&self) -> Vec<(Token, Source)> {
        let filled = |index: usize| Some((self.token(index), self.entries[index].source.clone()?));
        (0..self.entries.len()).filter_map(filled).collect()
    }

    fn token(&self, index: usize) -> Token {
        Token(self.entries[index].generation << INDEX_BITS | index)
    }

    fn entry_mut(&mut self, token: Token) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(token.0 & INDEX_MASK)?;
        (entry.generation == token.0 >> INDEX_BITS).then_some(entry)
    }
}

/// Half of a token for the place in the table, half for how often the place was reused.
const INDEX_BITS: u32 = usize::BITS / 2;
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Poll, Waker};

    use super::*;
    use crate::io::clock;

    fn sources() -> (Sources, Poll) {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        (Sources::new(Arc::new(Alarm::new(waker))), poll)
    }

    #[test]
    fn an_old_token_finds_nothing_in_a_reused_place() {
        let socket = |number| Arc::new(UdpSocket::bind(number, ([127, 0, 0, 1], 0).into()).unwrap());
        let (mut sources, _poll) = sources();
        let old = sources.reserve();
        sources.fill(old, Source::Udp(socket(1)));
        assert!(sources.remove(old).is_some());
        let new = sources.reserve();
        sources.fill(new, Source::Udp(socket(2)));
        assert!(sources.find(old).is_none() && sources.remove(old).is_none());
        assert!(matches!(sources.find(new), Some(Source::Udp(socket)) if socket.number() == 2));
    }

    #[test]
    fn timers_expire_in_order_and_go_with_their_source() {
        let now = clock::now();
        let (mut sources, _poll) = sources();
        let tokens: Vec<_> = (0..3).map(|_| sources.reserve()).collect();
        for (seconds, token) in [3, 1, 2].into_iter().zip(&tokens) {
            sources.set_timer(*token, Some(now + Duration::from_secs(seconds)));
        }
        sources.remove(tokens[2]);
        assert_eq!(sources.pop_expired(now), None);
        assert_eq!(sources.pop_expired(now + Duration::from_secs(9)), Some(tokens[1]));
        assert_eq!(sources.pop_expired(now + Duration::from_secs(9)), Some(tokens[0]));
        assert_eq!(sources.next_timer(), None);
    }
}
