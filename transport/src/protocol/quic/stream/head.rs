use quinn_proto::{Connection, WriteError};

use super::{Head, HeadEvent, REFUSED, ReadEnd, Receive, Send, Stream, read_chunk};
use crate::{
    Refusal, StreamError,
    protocol::{
        preface::{self, Preface, PrefaceError},
        verdict::Verdict,
    },
};

/// The exchange at the head of a stream.
impl Stream {
    /// Reads at the head, if the exchange is not over and enough is there.
    pub(in super::super) fn read_head(&mut self, connection: &mut Connection) -> Option<HeadEvent> {
        loop {
            let got = match &mut self.head {
                Head::AwaitPreface { got, .. } | Head::AwaitVerdict { got } => got,
                Head::Judging | Head::Open | Head::Refused(_) => return None,
            };
            let more = match read_chunk(connection, self.id, missing(got)) {
                Ok(Some(more)) => more,
                Ok(None) => {
                    self.receive = Receive::Done(Some(StreamError::UnexpectedEof));
                    return self.head_cut_short(connection);
                }
                Err(ReadEnd::Blocked) => return None,
                Err(ReadEnd::Failed(error)) => {
                    self.receive = Receive::Done(Some(error));
                    return self.head_cut_short(connection);
                }
            };
            got.extend_from_slice(&more);
            if let Some(event) = self.decode_head(connection) {
                return Some(event);
            }
        }
    }

    fn decode_head(&mut self, connection: &mut Connection) -> Option<HeadEvent> {
        match &self.head {
            Head::AwaitPreface { got, .. } => match Preface::decode(got) {
                Ok(None) => None,
                Ok(Some((preface, _))) => {
                    self.head = Head::Judging;
                    Some(HeadEvent::Preface(preface))
                }
                Err(error) => {
                    tracing::debug!(%error, "a preface that cannot be read");
                    self.answer(connection, Verdict::Refused(refusal(&error)));
                    None
                }
            },
            Head::AwaitVerdict { got } => {
                let verdict = match Verdict::decode(got) {
                    Ok(None) => return None,
                    Ok(Some((verdict, _))) => verdict,
                    Err(error) => {
                        tracing::debug!(%error, "a verdict that cannot be read");
                        Verdict::Refused(Refusal::Malformed)
                    }
                };
                self.take_verdict(connection, verdict);
                Some(HeadEvent::Verdict(verdict))
            }
            Head::Judging | Head::Open | Head::Refused(_) => None,
        }
    }

    fn take_verdict(&mut self, connection: &mut Connection, verdict: Verdict) {
        match verdict {
            Verdict::Accepted => self.head = Head::Open,
            Verdict::Refused(reason) => {
                self.head = Head::Refused(reason);
                self.reset(connection, REFUSED);
                self.stop(connection, REFUSED);
            }
        }
    }

    /// The peer ended the stream before its part of the exchange.
    fn head_cut_short(&mut self, connection: &mut Connection) -> Option<HeadEvent> {
        self.reset(connection, REFUSED);
        // A dialer learns of it as of a refusal; an acceptor has nothing to tell anybody.
        let dialled = matches!(self.head, Head::AwaitVerdict { .. });
        self.head = Head::Refused(Refusal::Malformed);
        dialled.then_some(HeadEvent::Verdict(Verdict::Refused(Refusal::Malformed)))
    }

    /// The acceptor's verdict goes out at the head of its direction.
    pub(in super::super) fn answer(&mut self, connection: &mut Connection, verdict: Verdict) {
        self.unsent.extend_from_slice(&verdict.encode());
        match verdict {
            Verdict::Accepted => {
                self.head = Head::Open;
                self.held = true;
            }
            Verdict::Refused(reason) => {
                self.head = Head::Refused(reason);
                self.finish(connection);
                self.stop(connection, REFUSED);
            }
        }
        self.send_head(connection);
    }

    /// Hands out what is left of our part of the exchange. Tells whether all of it is gone.
    pub(in super::super) fn send_head(&mut self, connection: &mut Connection) -> bool {
        while !self.unsent.is_empty() {
            match connection.send_stream(self.id).write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(WriteError::Blocked) => return false,
                Err(WriteError::Stopped(code)) => {
                    self.stopped(connection, code);
                    return true;
                }
                Err(WriteError::ClosedStream) => {
                    self.unsent.clear();
                }
            }
        }
        self.unsent = Vec::new();
        if self.send == Send::Finishing {
            self.finish_now(connection);
        }
        true
    }
}

fn refusal(error: &PrefaceError) -> Refusal {
    match *error {
        PrefaceError::Version { theirs } => Refusal::Version { theirs: preface::VERSION, ours: theirs },
        _ => Refusal::Malformed,
    }
}

/// How many bytes are certainly still missing: preface and verdict both begin with a version and a length.
fn missing(got: &[u8]) -> usize {
    match *got {
        [_, high, low, ..] => {
            (3 + usize::from(u16::from_be_bytes([high, low]))).saturating_sub(got.len()).max(1)
        }
        _ => 3 - got.len(),
    }
}
