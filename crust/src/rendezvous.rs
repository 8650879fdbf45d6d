use std::time::Duration;

use transport::{
    ConnectOptions as DialOptions, Rendezvous as Meeting, RendezvousError, RendezvousOffer, Stream,
};

use crate::ConnectOptions;

/// Our half of one meeting with one peer, for programs that carry the offers themselves; see
/// [`ServiceController::prepare_rendezvous`](crate::ServiceController::prepare_rendezvous). It serves once.
#[derive(Debug)]
pub struct Rendezvous {
    meeting: Meeting,
    deadline: Duration,
}

impl Rendezvous {
    pub(crate) const fn new(meeting: Meeting, deadline: Duration) -> Self {
        Self { meeting, deadline }
    }

    /// Meets the peer, which must do the same with our offer within a few seconds: by holes punched for UDP or TCP, or where
    /// one of us listens. Both calls return the ends of one stream, which no `accept` sees. Blocks at most
    /// [`Config::deadline`](crate::Config::deadline).
    ///
    /// # Errors
    ///
    /// [`RendezvousError`] with what became of each way.
    pub fn connect(self, theirs: &RendezvousOffer) -> Result<Stream, RendezvousError> {
        self.connect_with(theirs, &ConnectOptions::new())
    }

    /// The same with a protocol label, which both sides must name, or another deadline.
    ///
    /// # Errors
    ///
    /// As [`Rendezvous::connect`].
    pub fn connect_with(
        self,
        theirs: &RendezvousOffer,
        options: &ConnectOptions,
    ) -> Result<Stream, RendezvousError> {
        let dial = DialOptions::new()
            .protocol(options.protocol.clone())
            .timeout(options.deadline.unwrap_or(self.deadline));
        self.meeting.connect(theirs, &dial)
    }
}
