use std::{io, sync::Mutex};

use transport::RendezvousChannel;

use super::lock::Lock as _;
use crate::{
    protocol::introduction::{ConnectionMark, Saying, Sealing},
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
    saying: Saying,
    send: Box<dyn FnMut(Vec<u8>) -> io::Result<()> + Send + 'c>,
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
        let saying = Saying::new(sealing, self.improves, said);
        self.open.hold().insert(Open { saying, send: Box::new(send) }).tell(self.channel)
    }

    /// Tells the peer what is new, if it listens.
    pub(crate) fn tell(&self) {
        if let Some(open) = &mut *self.open.hold()
            && let Err(error) = open.tell(self.channel)
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
    fn tell(&mut self, channel: &RendezvousChannel) -> io::Result<()> {
        let offer = channel.offer();
        match self.saying.note(offer.to_bytes(), offer.has_more_to_come()) {
            Some(note) => (self.send)(note),
            None => Ok(()),
        }
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
