use super::{ConnectionMark, Particulars, Sealing};

/// What we tell the peer of a meeting, by whoever introduced us: nothing twice, and no more than an introducer carries.
#[derive(Debug)]
pub(crate) struct Saying {
    sealing: Sealing,
    /// What it is for, if not for a new connection.
    improves: Option<ConnectionMark>,
    /// What the peer knows.
    said: Option<Vec<u8>>,
    /// How many notes the introducer still carries.
    left: u8,
}

impl Saying {
    /// The peer listens from now on, and knows `said` already.
    pub(crate) const fn new(
        sealing: Sealing,
        improves: Option<ConnectionMark>,
        said: Option<Vec<u8>>,
    ) -> Self {
        Self { sealing, improves, said, left: NOTES }
    }

    /// The note with this offer, if it is news to the peer; `more`: others are to follow.
    pub(crate) fn note(&mut self, offer: Vec<u8>, more: bool) -> Option<Vec<u8>> {
        // The last note is for what ends it.
        let has_room = self.left > u8::from(more);
        if self.said.as_ref() == Some(&offer) || !has_room {
            return None;
        }
        self.left -= 1;
        let note = self.sealing.seal(&Particulars::meeting(offer.clone()).improves(self.improves));
        self.said = Some(offer);
        Some(note)
    }
}

/// One less than an introducer carries to either side, since an answer is one already.
const NOTES: u8 = 7;
