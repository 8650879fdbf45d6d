use crate::{admission::Refusal, protocol::meetings::Stray};

/// Counters of one [`Transport`](crate::Transport), since its start unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportStats {
    /// Streams that are open now, of both schemes and both directions.
    pub streams_open: u64,
    /// Incoming handshakes that broke off, were too slow, or spoke something else.
    pub handshakes_failed: u64,
    /// Streams refused since our admission does not know the key.
    pub refused_key: u64,
    /// Streams refused since they ask for a label that is not spoken here.
    pub refused_label: u64,
    /// Streams refused since their token was missing or wrong.
    pub refused_token: u64,
    /// Streams refused since the accept queue was full.
    pub refused_full: u64,
    /// Streams refused for any other reason.
    pub refused_other: u64,
    /// Streams that came for a rendezvous that we know nothing of, with its tag or from the peer it is with.
    pub rendezvous_unknown: u64,
    /// Streams that came for a rendezvous that was over.
    pub rendezvous_late: u64,
    /// Streams that came for a rendezvous when another stream had been chosen.
    pub rendezvous_repeated: u64,
    /// Connections turned away since too many handshakes from their network were in progress.
    pub refused_prefix_full: u64,
}

impl TransportStats {
    pub(crate) fn count_refusal(&mut self, reason: Refusal) {
        let counter = match reason {
            Refusal::Key => &mut self.refused_key,
            Refusal::Label => &mut self.refused_label,
            Refusal::Token => &mut self.refused_token,
            Refusal::Full => &mut self.refused_full,
            // Counted by what was wrong with it.
            Refusal::Rendezvous => return,
            // The peer asks again elsewhere.
            Refusal::Elsewhere => return,
            _ => &mut self.refused_other,
        };
        *counter += 1;
    }

    pub(crate) fn count_stray(&mut self, stray: Stray) {
        match stray {
            Stray::Unknown => self.rendezvous_unknown += 1,
            Stray::Late => self.rendezvous_late += 1,
            Stray::Repeated => self.rendezvous_repeated += 1,
            // A refusal of its own.
            Stray::OtherLabel => {}
        }
    }
}
