//! Frames: length of the rest (4 bytes, network order), kind (1 byte), content.

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Who the sender is; the first frame each way.
    Hello(String),
    /// The other's hello has come; the second frame each way.
    Ack,
    /// Nothing, but alive.
    Beat,
    Message(Vec<u8>),
}

impl Frame {
    /// Takes a frame off the front, and tells how long it was. `Ok(None)`: bytes are missing.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length == 0 || length > MAX_MESSAGE + 1 {
            return Err("a frame of excessive length, or none");
        }
        let Some((kind, content)) = rest.get(..length).and_then(<[u8]>::split_first) else { return Ok(None) };
        let frame = match (*kind, content) {
            (HELLO, name) if name.len() <= MAX_NAME => {
                let name = std::str::from_utf8(name).map_err(|_| "a name that is no text")?;
                Self::Hello(name.to_owned())
            }
            (ACK, []) => Self::Ack,
            (BEAT, []) => Self::Beat,
            (MESSAGE, message) => Self::Message(message.to_vec()),
            _ => return Err("a frame of unknown form"),
        };
        Ok(Some((frame, HEAD + length)))
    }
}

/// Appends a frame. The content is within its bound.
pub(super) fn write(output: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let length = u32::try_from(content.len() + 1).expect("contents are bounded");
    output.extend_from_slice(&length.to_be_bytes());
    output.push(kind);
    output.extend_from_slice(content);
}

/// Reads a frame; what is read is written the same, and less of it is no other frame. Tells how long it was, `None` where there is none.
#[cfg(fuzzing)]
#[must_use]
pub fn check_frame(bytes: &[u8]) -> Option<usize> {
    let (frame, length) = Frame::read(bytes).ok()??;
    let (kind, content) = match &frame {
        Frame::Hello(name) => (HELLO, name.as_bytes()),
        Frame::Ack => (ACK, &[][..]),
        Frame::Beat => (BEAT, &[][..]),
        Frame::Message(message) => (MESSAGE, &message[..]),
    };
    let mut written = Vec::new();
    write(&mut written, kind, content);
    assert_eq!(written, bytes[..length]);
    assert_eq!(Frame::read(&bytes[..length - 1]), Ok(None));
    Some(length)
}

pub(super) const HELLO: u8 = 0;
pub(super) const ACK: u8 = 1;
pub(super) const BEAT: u8 = 2;
pub(super) const MESSAGE: u8 = 3;
const HEAD: usize = 4;
/// The longest name, in bytes.
pub const MAX_NAME: usize = 64;
/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 256 << 10;
