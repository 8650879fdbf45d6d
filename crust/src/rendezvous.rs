use std::time::Duration;

use nat_traversal::PunchOptions;
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
    punch: PunchOptions,
}

impl Rendezvous {
    pub(crate) fn new(meeting: Meeting, deadline: Duration) -> Self {
        Self { meeting, deadline, punch: PunchOptions::new() }
    }

    /// Says at which addresses of the peer many ports may be tried, as it takes against a NAT that draws them at random: where somebody besides
    /// the peer sees it, or at all that it names, for a program whose user trusts the way of the offer. Default: at none.
    #[must_use]
    pub fn punch(mut self, options: PunchOptions) -> Self {
        self.punch = options;
        self
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
            .punch(self.punch)
            .timeout(options.deadline.unwrap_or(self.deadline));
        self.meeting.connect(theirs, &dial)
    }
}
