use std::{io, sync::Mutex};

use transport::RendezvousChannel;

use super::lock::Lock as _;
use crate::{
    protocol::introduction::{ConnectionMark, Particulars, Sealing},
    shared::{Learning, Shared},
};

/// What we tell the peer of a meeting, by whoever introduced us: nothing before the peer can take it in, and nothing twice.
pub(crate) struct Outlet<'c> {
    channel: &'c RendezvousChannel,
    /// What it is for, if not for a new connection.
    improves: Option<ConnectionMark>,
    open: Mutex<Option<Open<'c>>>,
}

struct Open<'c> {
    sealing: Sealing,
    send: Box<dyn FnMut(Vec<u8>) -> io::Result<()> + Send + 'c>,
    /// What the peer knows.
    said: Option<Vec<u8>>,
    /// How many notes the introducer still carries.
    left: u8,
}

impl<'c> Outlet<'c> {
    pub(crate) const fn new(channel: &'c RendezvousChannel) -> Self {
        Self { channel, improves: None, open: Mutex::new(None) }
    }

    /// Says that this connection is to take another path.
    pub(crate) fn improving(self, improves: Option<ConnectionMark>) -> Self {
        Self { improves, ..self }
    }

    /// The peer listens from now on, and knows `said` already; it is told at once what is new.
    pub(crate) fn begin(
        &self,
        sealing: Sealing,
        said: Option<Vec<u8>>,
        send: impl FnMut(Vec<u8>) -> io::Result<()> + Send + 'c,
    ) -> io::Result<()> {
        let mut open = self.open.hold();
        open.insert(Open { sealing, send: Box::new(send), said, left: NOTES })
            .tell(self.channel, self.improves)
    }

    /// Tells the peer what is new, if it listens.
    pub(crate) fn tell(&self) {
        if let Some(open) = &mut *self.open.hold()
            && let Err(error) = open.tell(self.channel, self.improves)
        {
            tracing::debug!(%error, "the peer was not told of an address found late");
        }
    }

    /// The peer listens no more.
    fn end(&self) {
        *self.open.hold() = None;
    }
}

impl Open<'_> {
    fn tell(&mut self, channel: &RendezvousChannel, improves: Option<ConnectionMark>) -> io::Result<()> {
        let offer = channel.offer();
        let bytes = offer.to_bytes();
        // The last note is for what ends it.
        let has_room = self.left > u8::from(offer.has_more_to_come());
        if self.said.as_ref() == Some(&bytes) || !has_room {
            return Ok(());
        }
        self.left -= 1;
        let note = self.sealing.seal(&Particulars::meeting(bytes.clone()).improves(improves));
        self.said = Some(bytes);
        (self.send)(note)
    }
}

/// Ends, when a meeting is over, what is learned for it and what is said.
pub(crate) struct EndCall<'c, 'o> {
    pub(crate) ends: &'c Learning,
    pub(crate) shared: &'c Shared,
    pub(crate) outlet: &'c Outlet<'o>,
}

impl Drop for EndCall<'_, '_> {
    fn drop(&mut self) {
        self.ends.interrupt();
        self.shared.nudge();
        self.outlet.end();
    }
}

/// One less than an introducer carries to either side, since an answer is one already.
const NOTES: u8 = 7;
