mod path;

use std::{
    fmt,
    net::Shutdown,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{Link, link::Core, link::Touch};
use crate::{
    PublicKey, StreamError,
    admission::ProtocolLabel,
    io::{
        clock,
        crank::Waited,
        lock::Lock as _,
        ready_list::ReadyList,
        slot::{Slot, Wakes},
    },
    protocol::quic::{QuicStreamId, ReadEnd, Rest, WriteEnd},
    stats::StreamStats,
    transport::Shared,
};

/// One stream of a connection, as its holder sees it. Its drop ends the stream cleanly.
pub(crate) struct QuicStream {
    shared: Arc<Shared>,
    link: Arc<Link>,
    id: QuicStreamId,
    peer: PublicKey,
    label: ProtocolLabel,
    reader: Arc<Slot>,
    writer: Arc<Slot>,
    /// Held by the thread that sits in a read, or a write: one a slot.
    reading: Mutex<()>,
    writing: Mutex<()>,
}

/// What the connection knows of whoever holds a stream.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) reader: Arc<Slot>,
    pub(super) writer: Arc<Slot>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    nonblocking: bool,
    read_shut: bool,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Handle {
    pub(super) fn new(reader: Arc<Slot>, writer: Arc<Slot>) -> Self {
        Self {
            reader,
            writer,
            read_timeout: None,
            write_timeout: None,
            nonblocking: false,
            read_shut: false,
            sent_bytes: 0,
            received_bytes: 0,
        }
    }
}

/// What a call that found nothing does.
enum Patience {
    None,
    Until(Option<Instant>),
}

/// One look at a direction.
enum Look {
    Done(usize),
    Blocked { patience: Patience, owes: bool },
}

impl Link {
    pub(super) fn stream(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        id: QuicStreamId,
        handle: Handle,
        peer: PublicKey,
        label: ProtocolLabel,
    ) -> QuicStream {
        shared.counters.hold().streams_open += 1;
        QuicStream {
            shared: shared.clone(),
            link: self.clone(),
            id,
            peer,
            label,
            reader: handle.reader,
            writer: handle.writer,
            reading: Mutex::default(),
            writing: Mutex::default(),
        }
    }
}

impl QuicStream {
    /// Reads what is there, or waits for it as the stream's mode says. 0 bytes are the end.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let _one = self.reading.hold();
        let mut until = None;
        loop {
            let (look, credit) = self.link.read(|core| self.try_read(core, buffer));
            if credit {
                self.flush_link();
            }
            match look? {
                Look::Done(bytes) => return Ok(bytes),
                Look::Blocked { patience, owes } => {
                    if owes && !credit {
                        self.flush_link();
                    }
                    self.wait(&self.reader, patience, &mut until)?;
                }
            }
        }
    }

    fn try_read(&self, core: &mut Core, buffer: &mut [u8]) -> Result<Look, StreamError> {
        let Some(handle) = core.streams.get_mut(&self.id) else { return Err(StreamError::Closed) };
        if handle.read_shut {
            return Ok(Look::Done(0));
        }
        match core.connection.read(self.id, buffer) {
            Ok(bytes) => {
                handle.received_bytes += bytes as u64;
                Ok(Look::Done(bytes))
            }
            Err(ReadEnd::Blocked) => {
                let patience = patience(handle.nonblocking, handle.read_timeout);
                if matches!(patience, Patience::Until(_)) {
                    core.connection.will_wait(self.id);
                }
                // A set sees to it when it waits, for all its streams.
                let owes = core.owes() && !self.reader.is_listed();
                Ok(Look::Blocked { patience, owes })
            }
            Err(ReadEnd::Failed(error)) => Err(error),
        }
    }

    /// Takes what there is room for and sends it, or waits for room as the stream's mode says.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize, StreamError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let _one = self.writing.hold();
        let mut until = None;
        loop {
            let look = self.change_by(Touch::Write, |core, _| {
                let Some(handle) = core.streams.get_mut(&self.id) else { return Err(StreamError::Closed) };
                match core.connection.write(self.id, bytes) {
                    Ok(taken) => {
                        handle.sent_bytes += taken as u64;
                        Ok(Look::Done(taken))
                    }
                    Err(WriteEnd::Blocked) => {
                        let patience = patience(handle.nonblocking, handle.write_timeout);
                        Ok(Look::Blocked { patience, owes: false })
                    }
                    Err(WriteEnd::Failed(error)) => Err(error),
                }
            });
            match look? {
                Look::Done(taken) => return Ok(taken),
                Look::Blocked { patience, .. } => self.wait(&self.writer, patience, &mut until)?,
            }
        }
    }

    /// Waits for the slot; `until` keeps the deadline of the whole call.
    fn wait(
        &self,
        slot: &Arc<Slot>,
        patience: Patience,
        until: &mut Option<Option<Instant>>,
    ) -> Result<(), StreamError> {
        let deadline = match patience {
            Patience::None => return Err(StreamError::WouldBlock),
            Patience::Until(deadline) => *until.get_or_insert(deadline),
        };
        match self.shared.crank.wait(slot, deadline) {
            Waited::Ready => Ok(()),
            Waited::TimedOut => Err(StreamError::TimedOut),
            Waited::Closed => Err(StreamError::Closed),
        }
    }

    /// Hands everything to the kernel that the peer's windows and the path allow.
    pub(crate) fn flush(&self) -> Result<(), StreamError> {
        self.change(|core, _| core.end_error()).map_or(Ok(()), Err)
    }

    /// Ends one direction or both; blocked calls in them return.
    pub(crate) fn shutdown(&self, how: Shutdown) -> Result<(), StreamError> {
        let ended = self.change(|core, now| {
            if let Some(error) = core.end_error() {
                return Err(error);
            }
            if how != Shutdown::Read {
                core.connection.finish(self.id);
            }
            if how != Shutdown::Write
                && let Some(handle) = core.streams.get_mut(&self.id)
            {
                handle.read_shut = true;
                core.connection.stop(now, self.id);
            }
            Ok(())
        });
        if how != Shutdown::Write {
            self.reader.wake();
        }
        if how != Shutdown::Read {
            self.writer.wake();
        }
        ended
    }

    /// Nobody reads any more, while somebody may still write.
    pub(crate) fn drop_reader(&self) {
        self.change(|core, now| core.connection.stop(now, self.id));
    }

    /// Nobody writes any more, while somebody may still read. Under a transport that is closed that is no end of the
    /// stream, but a stream cut off.
    pub(crate) fn drop_writer(&self) {
        let cut_off = self.shared.is_closed();
        self.change(|core, _| {
            if cut_off {
                core.connection.cut_off(self.id);
            } else {
                core.connection.finish(self.id);
            }
        });
    }

    /// Sends the end and waits until the peer has everything.
    pub(crate) fn close(&self, deadline: Instant) -> Result<(), StreamError> {
        let _one = self.writing.hold();
        let mut until = None;
        loop {
            let over = self.change(|core, _| {
                core.connection.finish(self.id);
                core.connection.acknowledged(self.id)
            });
            if let Some(result) = over {
                return result;
            }
            self.wait(&self.writer, Patience::Until(Some(deadline)), &mut until)?;
        }
    }

    /// Throws both directions away; the peer gets the code.
    pub(crate) fn reset(&self, code: u32) {
        self.change(|core, now| core.connection.reset(now, self.id, code));
        self.reader.wake();
        self.writer.wake();
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> Result<(), StreamError> {
        self.set(|handle| handle.read_timeout = timeout)
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> Result<(), StreamError> {
        self.set(|handle| handle.write_timeout = timeout)
    }

    pub(crate) fn set_keep_alive(&self, keep_alive: Duration, dead_after: Duration) {
        let rest = Rest { keep_alive, dead_after: Some(dead_after) };
        self.change(|core, now| core.connection.set_rest(now, self.id, rest));
    }

    /// Changes the mode, unless another thread sits in a call.
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> Result<(), StreamError> {
        let (Ok(_reading), Ok(_writing)) = (self.reading.try_lock(), self.writing.try_lock()) else {
            return Err(StreamError::Busy);
        };
        self.set(|handle| handle.nonblocking = nonblocking)
    }

    fn set(&self, set: impl FnOnce(&mut Handle)) -> Result<(), StreamError> {
        let (found, _) = self.link.read(|core| core.streams.get_mut(&self.id).map(|handle| set(handle)));
        found.ok_or(StreamError::Closed)
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.peer
    }

    pub(crate) fn protocol(&self) -> &ProtocolLabel {
        &self.label
    }

    pub(crate) fn export(&self, output: &mut [u8], label: &[u8], context: &[u8]) -> Option<()> {
        self.link.look(|core| core.connection.export(output, label, context))
    }

    pub(crate) fn stats(&self) -> StreamStats {
        self.link.look(|core| {
            let figures = core.connection.figures();
            let bytes = core.streams.get(&self.id).map(|handle| (handle.sent_bytes, handle.received_bytes));
            let (sent_bytes, received_bytes) = bytes.unwrap_or_default();
            StreamStats {
                sent_bytes,
                received_bytes,
                round_trip: Some(figures.round_trip),
                sent_packets: figures.sent_packets,
                lost_packets: figures.lost_packets,
            }
        })
    }

    /// Reports to a set from now on, and does not block.
    pub(crate) fn join_set(&self, list: &Arc<ReadyList>, key: usize) -> Result<(), StreamError> {
        self.set_nonblocking(true)?;
        self.reader.attach(list, key);
        self.writer.attach(list, key);
        Ok(())
    }

    /// Ends what `join_set` began.
    pub(crate) fn leave_set(&self) {
        self.reader.detach();
        self.writer.detach();
        if let Err(error) = self.set_nonblocking(false) {
            tracing::debug!(%error, "a stream stays non-blocking");
        }
    }

    /// Whether a read and a write are worth trying, since the last look.
    pub(crate) fn take_readiness(&self) -> (bool, bool) {
        (self.reader.take_ready(), self.writer.take_ready())
    }

    /// The set is about to wait: what its members have left to send goes.
    pub(crate) fn set_will_wait(&self) {
        if self.link.owes() {
            self.flush_link();
        }
    }

    fn flush_link(&self) {
        self.change(|_, _| ());
    }

    fn change<R>(&self, change: impl FnOnce(&mut Core, Instant) -> R) -> R {
        self.change_by(Touch::Flush, change)
    }

    fn change_by<R>(&self, touch: Touch, change: impl FnOnce(&mut Core, Instant) -> R) -> R {
        let mut wakes = Wakes::default();
        let result = self.link.change(&self.shared, &mut wakes, touch, change);
        wakes.fire();
        result
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        self.shared.counters.hold().streams_open -= 1;
        self.change(|core, now| {
            core.streams.remove(&self.id);
            core.connection.release(now, self.id);
        });
        // Whoever turned while waiting for this stream will not come back.
        self.shared.crank.leave();
    }
}

impl fmt::Debug for QuicStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("QuicStream")
            .field("peer", &self.peer)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

fn patience(nonblocking: bool, timeout: Option<Duration>) -> Patience {
    if nonblocking { Patience::None } else { Patience::Until(timeout.map(|timeout| clock::now() + timeout)) }
}
