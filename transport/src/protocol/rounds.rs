//! What becomes of a dial whose connection ends before the dial has its stream.
//!
//! The peer may have begun anew meanwhile, and more than one connection of the two may be dead without anybody's knowledge: so a dial goes
//! over whatever connection there is at first, and over one of its own in the end.
//!
//! ```text
//! First ──died──► Second ──died──► Last ──died──► fails
//!   over one that is there, or that the peer dials     on a connection of its own
//! ```

use super::quic::ConnectionEnd;

/// How often a dial has been begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    First,
    Second,
    /// No other dial shares its connection.
    Last,
}

/// A connection that has ended, as far as dials on it are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended<'e> {
    pub(crate) end: &'e ConnectionEnd,
    /// The handshake was over.
    pub(crate) was_up: bool,
    /// We dialled it, and further dials may share it.
    pub(crate) is_shared: bool,
}

impl Round {
    /// The round in which a dial on it goes on; `None` if it has failed.
    pub(crate) fn after(self, ended: Ended<'_>) -> Option<Self> {
        let Ended { end, was_up, is_shared } = ended;
        // We close a connection that others may share when nobody has a use for it; a dial may come at that very moment. And one that was
        // up may have been dead for long.
        let goes_on = if *end == ConnectionEnd::Closed { is_shared } else { was_up };
        self.next().filter(|_| goes_on)
    }

    /// The one that follows.
    pub(crate) const fn next(self) -> Option<Self> {
        match self {
            Self::First => Some(Self::Second),
            Self::Second => Some(Self::Last),
            Self::Last => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_goes_on_where_its_connection_may_have_been_dead_before_it() {
        let silent = ConnectionEnd::Broken("reset".to_owned());
        let after = |end, was_up, is_shared| Round::First.after(Ended { end, was_up, is_shared });
        assert_eq!(after(&silent, true, true), Some(Round::Second));
        assert_eq!(after(&silent, true, false), Some(Round::Second), "one that the peer dialled");
        assert_eq!(after(&silent, false, true), None, "the peer did not answer");
        assert_eq!(after(&ConnectionEnd::Closed, false, true), Some(Round::Second), "idle, and closed by us");
        assert_eq!(after(&ConnectionEnd::Closed, true, false), None, "given up");
        assert_eq!(after(&ConnectionEnd::ClosedByPeer, true, true), Some(Round::Second));
    }

    #[test]
    fn it_goes_on_twice() {
        let (mut round, mut rounds) = (Round::First, 0);
        let ended = Ended { end: &ConnectionEnd::ClosedByPeer, was_up: true, is_shared: true };
        while let Some(next) = round.after(ended) {
            (round, rounds) = (next, rounds + 1);
        }
        assert_eq!((round, rounds), (Round::Last, 2));
    }
}
