use std::time::Instant;

use crust::PublicKey;

use super::{
    Counters,
    frame::{self, Frame},
};

/// One stream, from its first byte.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: PublicKey,
    pub(super) heard_at: Instant,
    pub(super) said_at: Instant,
    pub(super) binding: [u8; 32],
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of the output was written.
    written: usize,
    /// The other's name, once it has said hello.
    name: Option<String>,
    acked: bool,
}

/// What a frame has brought about.
#[derive(Debug)]
pub(super) enum Progress {
    /// Both hellos are acknowledged.
    Up(String),
    Message(Vec<u8>),
}

impl Link {
    pub(super) const fn new(now: Instant, peer: PublicKey) -> Self {
        Self {
            peer,
            heard_at: now,
            said_at: now,
            binding: [0; 32],
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            name: None,
            acked: false,
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        self.acked && self.name.is_some()
    }

    pub(super) fn take(&mut self, now: Instant, bytes: &[u8]) {
        self.heard_at = now;
        self.input.extend_from_slice(bytes);
    }

    /// Handles frames until one matters. What it holds of the input is never more than a frame and what came with it.
    pub(super) fn progress(
        &mut self,
        now: Instant,
        counters: &mut Counters,
    ) -> Result<Option<Progress>, &'static str> {
        let mut used = 0;
        let progress = loop {
            let Some((frame, length)) = Frame::read(&self.input[used..])? else { break None };
            used += length;
            if let Some(progress) = self.handle(now, frame, counters)? {
                break Some(progress);
            }
        };
        self.input.drain(..used);
        Ok(progress)
    }

    fn handle(
        &mut self,
        now: Instant,
        frame: Frame,
        counters: &mut Counters,
    ) -> Result<Option<Progress>, &'static str> {
        match frame {
            Frame::Hello(name) if self.name.is_none() => {
                counters.hellos_received += 1;
                counters.acks_sent += 1;
                self.write(now, frame::ACK, &[]);
                self.name = Some(name);
            }
            Frame::Ack if !self.acked => {
                counters.acks_received += 1;
                self.acked = true;
            }
            Frame::Hello(_) | Frame::Ack => return Err("a second hello or acknowledgement"),
            Frame::Beat => return Ok(None),
            // The other may send once it has our hello, which it acknowledges before, and our acknowledgement of its own.
            Frame::Message(_) if !self.is_up() => return Err("a message before hello and acknowledgement"),
            Frame::Message(message) => {
                counters.messages_received += 1;
                return Ok(Some(Progress::Message(message)));
            }
        }
        Ok(self.name.clone().filter(|_| self.acked).map(Progress::Up))
    }

    pub(super) fn hello(&mut self, now: Instant, name: &str) {
        self.write(now, frame::HELLO, name.as_bytes());
    }

    pub(super) fn message(&mut self, now: Instant, message: &[u8]) {
        self.write(now, frame::MESSAGE, message);
    }

    /// Says something, unless the other takes nothing in: a beat behind a full queue tells it nothing.
    pub(super) fn beat(&mut self, now: Instant) {
        if self.output().is_empty() {
            self.write(now, frame::BEAT, &[]);
        }
        self.said_at = now;
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.output.len() - self.written
    }

    pub(super) fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written = (self.written + bytes).min(self.output.len());
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        } else if self.written > self.output.len() / 2 {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }

    fn write(&mut self, now: Instant, kind: u8, content: &[u8]) {
        frame::write(&mut self.output, kind, content);
        self.said_at = now;
    }
}
