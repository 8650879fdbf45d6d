use std::io::{ErrorKind, Read as _, Write as _};

use transport::Stream;

use crate::protocol::introducer::{
    ClientId,
    frame::{Frame, Frames},
};

/// One stream of the set: what is half read and half written.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) role: Role,
    frames: Frames,
    unsent: Vec<u8>,
}

/// What the other end is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Somebody whom we introduce to others.
    Client(ClientId),
    /// Somebody who introduces us; the number of the attachment.
    Introducer(usize),
}

/// What became of reading.
pub(super) enum State {
    /// There may be more.
    More,
    /// There is no more now.
    Waiting,
    Ended(String),
}

impl Connection {
    pub(super) fn new(role: Role) -> Self {
        Self { role, frames: Frames::default(), unsent: Vec::new() }
    }

    pub(super) fn read(&mut self, mut stream: &Stream) -> (Vec<Frame>, State) {
        let mut found = Vec::new();
        let mut buffer = [0; 4_096];
        for _ in 0..READS_PER_TURN {
            match stream.read(&mut buffer) {
                Ok(0) => return (found, State::Ended("it ended the stream".to_owned())),
                Ok(length) => self.frames.push(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (found, State::Waiting),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (found, State::Ended(error.to_string())),
            }
            loop {
                match self.frames.next() {
                    Ok(Some(frame)) => found.push(frame),
                    Ok(None) => break,
                    Err(error) => return (found, State::Ended(error.to_string())),
                }
            }
        }
        (found, State::More)
    }

    /// Adds what is to be sent; tells whether there was room.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let fits = self.unsent.len() + bytes.len() <= MAX_UNSENT_BYTES;
        if fits {
            self.unsent.extend_from_slice(bytes);
        }
        fits
    }

    pub(super) fn flush(&mut self, mut stream: &Stream) -> Result<(), String> {
        while !self.unsent.is_empty() {
            match stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        // It may be the last for hours.
        self.unsent.shrink_to(0);
        Ok(())
    }
}

/// So that one who floods keeps nobody else waiting.
const READS_PER_TURN: usize = 4;
/// What sixteen calls say at once.
const MAX_UNSENT_BYTES: usize = 64 << 10;
