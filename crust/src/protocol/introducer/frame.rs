//! What goes over a stream with the protocol label `crust-introduce/1`, each way.
//!
//! ```text
//! | kind (1) | length of the body (2) | body |
//!
//!   kind 1: Attach     nothing                                   peer → introducer
//!   kind 2: Attached   port at which it answers STUN (2)         introducer → peer
//!   kind 3: Knock      call (4), key (32), knock                 key: who is wanted →, ← who knocks
//!   kind 4: Note       call (4), an answer or an offer           both ways
//!   kind 5: End        call (4), reason (1)                      both ways
//!   kind 128: Relay    port (2), seconds (4), length of the name (1), name, password      introducer → peer
//!   kind 129: Vouch    call (4)                                  peer → introducer: tell the other where you see me
//!                      call (4), 4 or 6 (1), address (4 or 16)   introducer → peer: there I see the other
//!   kind 130: Rest     seconds (2)                               peer → introducer: after so much silence say that you are there; 0: never
//!   kind 131: Still    nothing                                   introducer → peer: I am
//! ```
//!
//! Frames of kinds from 128 on that are not known are skipped. What follows the known part of an Attach, Attached, Vouch, Rest or Still
//! is left for later versions.

use std::{fmt, net::IpAddr};

use transport::PublicKey;
use zeroize::Zeroizing;

use crate::protocol::introduction::{MAX_ANSWER_BYTES, MAX_KNOCK_BYTES};

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Call me when somebody asks for my key.
    Attach,
    /// That will be done.
    Attached { stun_port: u16 },
    /// A peer wants to be introduced.
    Knock { call: u32, key: PublicKey, knock: Vec<u8> },
    /// What one says to the other.
    Note { call: u32, note: Vec<u8> },
    /// No more will come of this call.
    End { call: u32, reason: EndReason },
    /// You may use my relay.
    Relay(Ticket),
    /// From where the introducer sees a side of a call come; without an address, the wish that the other be told.
    Vouch { call: u32, source: Option<IpAddr> },
    /// After so much silence, say that you are still there.
    Rest { seconds: u16 },
    /// I am.
    Still,
}

/// What it takes to use an introducer's relay, for some time.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Where it answers TURN, over UDP and TCP, at the introducer's address.
    pub(crate) port: u16,
    /// How long the rest is good.
    pub(crate) seconds: u32,
    pub(crate) username: String,
    pub(crate) password: Zeroizing<String>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, seconds, .. } = self;
        formatter.debug_struct("Ticket").field("port", port).field("seconds", seconds).finish_non_exhaustive()
    }
}

impl Ticket {
    fn encode(&self) -> Vec<u8> {
        let name = self.username.as_bytes();
        let length = u8::try_from(name.len()).expect("names of users are short");
        let head = [&self.port.to_be_bytes()[..], &self.seconds.to_be_bytes(), &[length]].concat();
        [&head, name, self.password.as_bytes()].concat()
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (port, rest) = body.split_first_chunk::<2>()?;
        let (seconds, rest) = rest.split_first_chunk::<4>()?;
        let (&length, rest) = rest.split_first()?;
        let (name, password) = rest.split_at_checked(usize::from(length))?;
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok().filter(|text| text.len() <= MAX_TEXT_BYTES);
        Some(Self {
            port: u16::from_be_bytes(*port),
            seconds: u32::from_be_bytes(*seconds),
            username: text(name)?,
            password: Zeroizing::new(text(password)?),
        })
    }
}

/// Why a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndReason {
    #[error("both have what they need")]
    Done,
    #[error("the peer is not attached to this introducer")]
    Unknown,
    #[error("the introducer carries no more calls now")]
    Busy,
    #[error("the peer did not answer in time")]
    TimedOut,
    #[error("the peer is gone")]
    Gone,
    #[error("the peer does not want")]
    Declined,
    #[error("the introducer gave reason {0}, which is unknown here")]
    Other(u8),
}

impl EndReason {
    const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unknown => 1,
            Self::Busy => 2,
            Self::TimedOut => 3,
            Self::Gone => 4,
            Self::Declined => 5,
            Self::Other(code) => code,
        }
    }

    const fn of(code: u8) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::Unknown,
            2 => Self::Busy,
            3 => Self::TimedOut,
            4 => Self::Gone,
            5 => Self::Declined,
            code => Self::Other(code),
        }
    }
}

impl Frame {
    /// The bytes on the stream.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Attach => (ATTACH, Vec::new()),
            Self::Attached { stun_port } => (ATTACHED, stun_port.to_be_bytes().to_vec()),
            Self::Knock { call, key, knock } => {
                (KNOCK, [&call.to_be_bytes(), &key.as_bytes()[..], knock].concat())
            }
            Self::Note { call, note } => (NOTE, [&call.to_be_bytes()[..], note].concat()),
            Self::End { call, reason } => (END, [&call.to_be_bytes()[..], &[reason.code()]].concat()),
            Self::Relay(ticket) => (RELAY, ticket.encode()),
            Self::Vouch { call, source } => {
                let mut body = call.to_be_bytes().to_vec();
                match source {
                    Some(IpAddr::V4(ip)) => body.extend([&[4][..], &ip.octets()].concat()),
                    Some(IpAddr::V6(ip)) => body.extend([&[6][..], &ip.octets()].concat()),
                    None => {}
                }
                (VOUCH, body)
            }
            Self::Rest { seconds } => (REST, seconds.to_be_bytes().to_vec()),
            Self::Still => (STILL, Vec::new()),
        };
        let length = u16::try_from(body.len()).expect("what is put into frames is bounded below that");
        [&[kind], &length.to_be_bytes()[..], &body].concat()
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Option<Self>, FrameError> {
        let malformed = FrameError::Malformed { kind };
        let number = || body.split_first_chunk::<4>().ok_or(malformed);
        Ok(Some(match kind {
            ATTACH => Self::Attach,
            ATTACHED => {
                let (port, _) = body.split_first_chunk::<2>().ok_or(malformed)?;
                Self::Attached { stun_port: u16::from_be_bytes(*port) }
            }
            KNOCK => {
                let (call, rest) = number()?;
                let (key, knock) = rest.split_first_chunk::<32>().ok_or(malformed)?;
                if knock.len() > MAX_KNOCK_BYTES {
                    return Err(malformed);
                }
                let key = PublicKey::from_bytes(*key);
                Self::Knock { call: u32::from_be_bytes(*call), key, knock: knock.to_vec() }
            }
            NOTE => {
                let (call, note) = number()?;
                Self::Note { call: u32::from_be_bytes(*call), note: note.to_vec() }
            }
            END => {
                let (call, reason) = number()?;
                let reason = EndReason::of(*reason.first().ok_or(malformed)?);
                Self::End { call: u32::from_be_bytes(*call), reason }
            }
            RELAY => Self::Relay(Ticket::decode(body).ok_or(malformed)?),
            VOUCH => {
                let (call, rest) = number()?;
                let source = match rest.split_first() {
                    None => None,
                    Some((4, ip)) => Some(IpAddr::from(*ip.first_chunk::<4>().ok_or(malformed)?)),
                    Some((6, ip)) => Some(IpAddr::from(*ip.first_chunk::<16>().ok_or(malformed)?)),
                    Some(_) => return Ok(None),
                };
                Self::Vouch { call: u32::from_be_bytes(*call), source }
            }
            REST => {
                let (seconds, _) = body.split_first_chunk::<2>().ok_or(malformed)?;
                Self::Rest { seconds: u16::from_be_bytes(*seconds) }
            }
            STILL => Self::Still,
            FIRST_SKIPPED.. => return Ok(None),
            _ => return Err(FrameError::Unknown { kind }),
        }))
    }
}

/// Frames from the bytes of a stream, however they are cut.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    /// Adds what was read. Take all frames out before adding more, so that the buffer stays short.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let Some((&[kind, high, low], rest)) = self.buffer.split_first_chunk::<3>() else {
                return Ok(None);
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length > MAX_BODY_BYTES {
                return Err(FrameError::TooLong { length });
            }
            let Some(body) = rest.get(..length) else { return Ok(None) };
            let frame = Frame::decode(kind, body);
            self.buffer.drain(..3 + length);
            if let Some(frame) = frame? {
                return Ok(Some(frame));
            }
        }
    }
}

/// The other end does not keep to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {length} bytes, at most {MAX_BODY_BYTES} are read")]
    TooLong { length: usize },
    #[error("a frame of the unknown kind {kind}")]
    Unknown { kind: u8 },
    #[error("a frame of kind {kind} that cannot be read")]
    Malformed { kind: u8 },
}

const ATTACH: u8 = 1;
const ATTACHED: u8 = 2;
const KNOCK: u8 = 3;
const NOTE: u8 = 4;
const END: u8 = 5;
const RELAY: u8 = 128;
const VOUCH: u8 = 129;
const REST: u8 = 130;
const STILL: u8 = 131;
const FIRST_SKIPPED: u8 = 132;
/// Ours have some thirty.
const MAX_TEXT_BYTES: usize = 128;
/// The longest answer and its number.
pub(crate) const MAX_BODY_BYTES: usize = 4 + MAX_ANSWER_BYTES;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn golden() -> Vec<(Frame, Vec<u8>)> {
        let key = PublicKey::from_bytes([7; 32]);
        let knock = [&b"\x03\x00\x27\x80\x00\x00\x01"[..], &[7; 32], b"abc"].concat();
        vec![
            (Frame::Attach, b"\x01\x00\x00".to_vec()),
            (Frame::Attached { stun_port: 3478 }, b"\x02\x00\x02\x0d\x96".to_vec()),
            (Frame::Knock { call: 0x8000_0001, key, knock: b"abc".to_vec() }, knock),
            (Frame::Note { call: 2, note: b"de".to_vec() }, b"\x04\x00\x06\x00\x00\x00\x02de".to_vec()),
            (Frame::End { call: 2, reason: EndReason::Busy }, b"\x05\x00\x05\x00\x00\x00\x02\x02".to_vec()),
            (
                Frame::Relay(Ticket {
                    port: 3478,
                    seconds: 60,
                    username: "9:a".to_owned(),
                    password: Zeroizing::new("b".to_owned()),
                }),
                b"\x80\x00\x0b\x0d\x96\x00\x00\x00\x3c\x039:ab".to_vec(),
            ),
            (Frame::Vouch { call: 2, source: None }, b"\x81\x00\x04\x00\x00\x00\x02".to_vec()),
            (
                Frame::Vouch { call: 2, source: Some(IpAddr::from([192, 0, 2, 1])) },
                b"\x81\x00\x09\x00\x00\x00\x02\x04\xc0\x00\x02\x01".to_vec(),
            ),
            (
                Frame::Vouch { call: 2, source: Some(IpAddr::from([7; 16])) },
                [&b"\x81\x00\x15\x00\x00\x00\x02\x06"[..], &[7; 16]].concat(),
            ),
            (Frame::Rest { seconds: 25 }, b"\x82\x00\x02\x00\x19".to_vec()),
            (Frame::Still, b"\x83\x00\x00".to_vec()),
        ]
    }

    #[test]
    fn the_golden_bytes_read_and_write() {
        let document = include_str!("../../../../docs/wire.md");
        for (frame, bytes) in golden() {
            assert_eq!(frame.encode(), bytes);
            let mut frames = Frames::default();
            frames.push(&bytes);
            assert_eq!(frames.next(), Ok(Some(frame)));
            assert_eq!(frames.next(), Ok(None));
            if bytes.len() < 16 {
                let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                assert!(document.contains(&format!("`{}`", hex.join(" "))), "{}", hex.join(" "));
            }
        }
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let all: Vec<u8> = golden().into_iter().flat_map(|(_, bytes)| bytes).collect();
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for byte in [&b"\xff\x00\x01x"[..], &all].concat() {
            frames.push(&[byte]);
            found.extend(frames.next().unwrap());
        }
        assert_eq!(found, golden().into_iter().map(|(frame, _)| frame).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let read = |bytes: &[u8]| {
            let mut frames = Frames::default();
            frames.push(bytes);
            frames.next()
        };
        assert_eq!(read(b"\x09\x00\x00"), Err(FrameError::Unknown { kind: 9 }));
        assert_eq!(read(b"\x05\x00\x04\0\0\0\0"), Err(FrameError::Malformed { kind: 5 }));
        assert_eq!(read(b"\x04\xff\xff"), Err(FrameError::TooLong { length: 65_535 }));
        assert_eq!(read(b"\x02\x00\x04\x00\x01ab"), Ok(Some(Frame::Attached { stun_port: 1 })));
        assert_eq!(read(b"\x81\x00\x08\0\0\0\0\x04\xc0\x00\x02"), Err(FrameError::Malformed { kind: 129 }));
        assert_eq!(read(b"\x81\x00\x08\0\0\0\0\x05\xc0\x00\x02"), Ok(None), "an address of a family to come");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(frame)) = frames.next() {
                prop_assert!(frame.encode().len() <= 3 + MAX_BODY_BYTES);
            }
        }
    }
}
