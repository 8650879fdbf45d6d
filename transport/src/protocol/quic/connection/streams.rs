use std::time::Instant;

use quinn_proto::{Dir, StreamEvent, StreamId, VarInt};

use super::{DONE, QuicConnection, QuicEvent, TOO_SLOW};
use crate::{
    StreamError,
    protocol::{
        preface::Preface,
        quic::stream::{HeadEvent, ReadEnd, Stream, WriteEnd},
        verdict::Verdict,
    },
};

impl QuicConnection {
    pub(super) fn digest_stream(&mut self, now: Instant, event: StreamEvent) {
        match event {
            StreamEvent::Opened { .. } => {
                while let Some(id) = self.inner.streams().accept(Dir::Bi) {
                    let deadline = now + self.handshake_timeout;
                    self.streams.insert(id, Box::new(Stream::accepted(id, deadline)));
                    self.timers.prefaces.get_or_insert(deadline);
                    self.timers.unused = None;
                    self.readable(id);
                }
                self.allow_more_streams();
            }
            StreamEvent::Available { .. } => self.open_waiting(),
            StreamEvent::Readable { id } => {
                self.data_came(now);
                self.readable(id);
            }
            StreamEvent::Writable { id } => {
                let Some(stream) = self.streams.get_mut(&id) else { return };
                if stream.send_head(&mut self.inner) {
                    self.events.push_back(QuicEvent::Writable(id));
                }
            }
            StreamEvent::Finished { id } => {
                let Some(stream) = self.streams.get_mut(&id) else { return };
                stream.acknowledged();
                self.events.push_back(QuicEvent::Acknowledged(id));
                self.forget_streams(now);
            }
            StreamEvent::Stopped { id, error_code } => {
                let Some(stream) = self.streams.get_mut(&id) else { return };
                stream.stopped(&mut self.inner, error_code);
                self.events.push_back(QuicEvent::Acknowledged(id));
                self.events.push_back(QuicEvent::Writable(id));
                self.forget_streams(now);
            }
        }
    }

    fn readable(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.read_head(&mut self.inner) {
            Some(HeadEvent::Preface(preface)) => {
                self.events.push_back(QuicEvent::Preface { stream: id, preface: Box::new(preface) });
            }
            Some(HeadEvent::Verdict(verdict)) => {
                if verdict == Verdict::Accepted {
                    self.timers.admission = None;
                }
                self.events.push_back(QuicEvent::Verdict { stream: id, verdict });
            }
            None => {}
        }
        stream.is_drained = false;
        if !stream.told_readable {
            stream.told_readable = true;
            if stream.is_open() {
                stream.round = self.gather.woke();
            }
            self.events.push_back(QuicEvent::Readable(id));
        }
    }

    /// Opens a stream that begins with `preface`, now or when the peer allows one more; [`QuicEvent::Opened`] tells.
    pub(crate) fn open(&mut self, ticket: u64, preface: &Preface) {
        self.timers.unused = None;
        self.waiting.push_back((ticket, preface.encode()));
        if self.peer.is_some() {
            self.open_waiting();
        }
    }

    /// Takes an `open` back. A stream that is open already is the caller's to throw away.
    pub(crate) fn cancel_open(&mut self, now: Instant, ticket: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        self.unused(now);
    }

    pub(super) fn open_waiting(&mut self) {
        while !self.waiting.is_empty() {
            let Some(id) = self.inner.streams().open(Dir::Bi) else { return };
            let Some((ticket, preface)) = self.waiting.pop_front() else { return };
            let mut stream = Box::new(Stream::dialled(id, preface));
            stream.send_head(&mut self.inner);
            self.streams.insert(id, stream);
            self.gather.end();
            self.events.push_back(QuicEvent::Opened { ticket, stream: id });
        }
    }

    /// Whether there are streams on it, or are to be.
    pub(crate) fn is_used(&self) -> bool {
        !self.streams.is_empty() || !self.waiting.is_empty()
    }

    /// Sends the verdict on a stream whose preface was reported.
    pub(crate) fn answer(&mut self, now: Instant, stream: StreamId, verdict: Verdict) {
        if verdict == Verdict::Accepted {
            self.timers.admission = None;
        }
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.answer(&mut self.inner, verdict);
            self.gather.end();
        }
        self.forget_streams(now);
    }

    /// Reads what is there. `Ok(0)` is the peer's end, if there is room in `buffer`.
    pub(crate) fn read(&mut self, stream: StreamId, buffer: &mut [u8]) -> Result<usize, ReadEnd> {
        let Some(stream) = self.streams.get_mut(&stream) else {
            return Err(ReadEnd::Failed(StreamError::Closed));
        };
        match stream.read(&mut self.inner, buffer) {
            Ok(read) => {
                self.window.consume(read.bytes);
                self.credit.due |= read.credit_due;
                self.credit.read = self.credit.read.saturating_add(read.bytes as u64);
                if read.ended {
                    // Its sender may wait to hear that everything arrived; an acknowledgement alone would be held back.
                    self.inner.ping();
                    self.credit.urgent = true;
                }
                Ok(read.bytes)
            }
            Err(ReadEnd::Blocked) => match &self.end {
                Some(end) => Err(ReadEnd::Failed(end.stream_error())),
                None => Err(ReadEnd::Blocked),
            },
            Err(failed) => Err(failed),
        }
    }

    /// Whether the peer should be told at once that it may send more: else it soon has nothing left to do.
    pub(crate) fn owes_credit(&self) -> bool {
        let window = self.window.bytes().min(self.stream_window);
        self.credit.urgent || (self.credit.due && self.credit.read >= window / CREDIT_PART)
    }

    /// Takes as much as there is room for. A short rest of it may wait up to a millisecond for the next write, see
    /// [`super::super::tail::Tail`], and a small one for those of other streams, see [`super::super::gather::Gather`];
    /// [`Self::release_held`] sends it.
    pub(crate) fn write(&mut self, stream: StreamId, bytes: &[u8]) -> Result<usize, WriteEnd> {
        let result = self.write_now(stream, bytes);
        match &result {
            Ok(taken) => {
                self.tail.wrote(*taken);
                if let Some(stream) = self.streams.get_mut(&stream) {
                    self.gather.wrote(&mut stream.round, *taken);
                }
            }
            // The writer is about to wait for what the peer says to what it has.
            Err(_) => self.release_held(),
        }
        result
    }

    /// Whoever reads the stream has all there is, and is about to wait.
    pub(crate) fn will_wait(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            self.gather.came_back(&mut stream.round);
        }
    }

    fn write_now(&mut self, stream: StreamId, bytes: &[u8]) -> Result<usize, WriteEnd> {
        if let Some(end) = &self.end {
            return Err(WriteEnd::Failed(end.stream_error()));
        }
        let Some(stream) = self.streams.get_mut(&stream) else {
            return Err(WriteEnd::Failed(StreamError::Closed));
        };
        let result = stream.write(&mut self.inner, bytes);
        if result != Err(WriteEnd::Blocked) {
            return result;
        }
        // Room for twice what the path carries: what is on the way, and what follows it.
        let wanted = self.inner.congestion_state().window().saturating_mul(2).min(MAX_SEND_WINDOW);
        if wanted <= self.send_window {
            return result;
        }
        self.send_window = wanted;
        self.inner.set_send_window(wanted);
        stream.write(&mut self.inner, bytes)
    }

    /// Sends the end of our direction after all that was written.
    pub(crate) fn finish(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.finish(&mut self.inner);
        }
    }

    /// Whether the peer has acknowledged everything up to the end; `None`: not yet.
    pub(crate) fn acknowledged(&self, stream: StreamId) -> Option<Result<(), StreamError>> {
        let known = self.streams.get(&stream).and_then(|stream| stream.is_acknowledged());
        known.or_else(|| self.end.as_ref().map(|end| Err(end.stream_error())))
    }

    /// Throws both directions away.
    pub(crate) fn reset(&mut self, now: Instant, stream: StreamId, code: u32) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.reset(&mut self.inner, code);
            stream.stop(&mut self.inner, code);
        }
        self.forget_streams(now);
    }

    /// The stream goes down with its transport: what was not ended is thrown away.
    pub(crate) fn cut_off(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.cut_off(&mut self.inner, DONE);
        }
    }

    /// Nobody holds the stream any more: ends it cleanly, and forgets it once the peer has everything.
    pub(crate) fn release(&mut self, now: Instant, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.finish(&mut self.inner);
            stream.stop(&mut self.inner, DONE);
            stream.held = false;
        }
        self.forget_streams(now);
    }

    /// Stops listening; what the peer still sends is dropped.
    pub(crate) fn stop(&mut self, now: Instant, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.stop(&mut self.inner, DONE);
        }
        self.forget_streams(now);
    }

    fn allow_more_streams(&mut self) {
        let open = self.inner.streams().remote_open_streams(Dir::Bi);
        if open * 3 >= u64::from(self.max_streams) * 2 && self.max_streams < self.most_streams {
            self.max_streams = self.max_streams.saturating_mul(2).min(self.most_streams);
            self.inner.set_max_concurrent_streams(Dir::Bi, VarInt::from_u32(self.max_streams));
        }
    }

    pub(super) fn forget_streams(&mut self, now: Instant) {
        let before = self.streams.len();
        self.streams.retain(|stream| stream.held || !stream.is_over());
        if self.streams.len() != before {
            self.unused(now);
        }
    }

    pub(super) fn drop_slow_prefaces(&mut self, now: Instant) {
        let slow = |stream: &Stream| stream.deadline().is_some_and(|deadline| deadline <= now);
        for stream in self.streams.values_mut().filter(|stream| slow(stream)) {
            stream.reset(&mut self.inner, TOO_SLOW);
            stream.stop(&mut self.inner, TOO_SLOW);
        }
        self.timers.prefaces = self.streams.values().filter_map(|stream| stream.deadline()).min();
        self.forget_streams(now);
    }

    /// Whether bytes or ends of streams are still to be acknowledged.
    pub(crate) fn is_sending(&self) -> bool {
        self.end.is_none() && self.streams.values().any(|stream| stream.is_sending())
    }
}

/// The engine would tell after an eighth of the window, and whoever is about to wait tells anyway.
const CREDIT_PART: u64 = 4;
/// What one writer can make us hold: twice 1 Gbit/s at 100 ms.
const MAX_SEND_WINDOW: u64 = 25_000_000;
