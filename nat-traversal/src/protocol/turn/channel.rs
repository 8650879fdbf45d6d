//! ChannelData ([RFC 8656, section 12.4](https://www.rfc-editor.org/rfc/rfc8656#section-12.4)), and what bounds messages
//! in a stream:
//!
//! ```text
//! | channel number 0x4000 to 0x4FFF (16) | length (16) | data, in streams padded to 32 bits |
//! ```

use crate::protocol::stun::{DecodeError, Message};

/// What a peer is called in messages of few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The channel with this place among all, which begins again after the last.
    pub(super) const fn nth(place: u16) -> Self {
        Self(FIRST + place % CHANNELS)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The four bytes before a payload of this length.
    pub(super) const fn head(self, payload_bytes: u16) -> [u8; HEAD_BYTES] {
        let (number, length) = (self.0.to_be_bytes(), payload_bytes.to_be_bytes());
        [number[0], number[1], length[0], length[1]]
    }
}

/// Whether bytes are ChannelData rather than STUN.
pub(super) fn is_channel_data(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first >> 4 == 4)
}

/// The channel and the payload of a message; `None` if it is cut off.
pub(super) fn decode(bytes: &[u8]) -> Option<(ChannelNumber, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let number = u16::from_be_bytes([head[0], head[1]]);
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    (FIRST..FIRST + CHANNELS).contains(&number).then_some(())?;
    Some((ChannelNumber(number), rest.get(..length)?))
}

/// The length of the message, STUN or ChannelData, that begins with these bytes of a stream; `None` until its head is
/// there. At most 65,556 bytes.
///
/// # Errors
///
/// [`DecodeError::NotStun`] if neither begins there, after which nothing in the stream can be understood.
pub fn frame_length(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    if !is_channel_data(bytes) {
        return Message::length_in_stream(bytes);
    }
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    Ok(Some(HEAD_BYTES + length.next_multiple_of(4)))
}

pub(super) const HEAD_BYTES: usize = 4;

const FIRST: u16 = 0x4000;

/// How many channels there are.
pub(super) const CHANNELS: u16 = 0x1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_and_a_payload_are_read_again() {
        let channel = ChannelNumber::nth(3);
        assert_eq!(channel.number(), 0x4003);
        let bytes = [&channel.head(5)[..], b"hello"].concat();
        assert!(is_channel_data(&bytes));
        assert_eq!(decode(&bytes), Some((channel, &b"hello"[..])));
        assert_eq!(decode(&[&bytes[..], &[0; 3]].concat()), Some((channel, &b"hello"[..])), "padded");
        assert_eq!(decode(&bytes[..8]), None, "cut off");
        assert_eq!(decode(&[0x50, 0, 0, 0]), None, "not a channel");
        assert_eq!(ChannelNumber::nth(CHANNELS), ChannelNumber::nth(0));
    }

    #[test]
    fn messages_of_both_kinds_are_found_in_a_stream() {
        assert_eq!(frame_length(&[]), Ok(None));
        assert_eq!(frame_length(&[0x40, 1, 0]), Ok(None));
        assert_eq!(frame_length(&[0x40, 1, 0, 5]), Ok(Some(12)));
        assert_eq!(frame_length(&[0x40, 1, 0xFF, 0xFF]), Ok(Some(65_540)));
        let stun = [&[0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42][..], &[0; 12]].concat();
        assert_eq!(frame_length(&stun[..19]), Ok(None));
        assert_eq!(frame_length(&stun), Ok(Some(28)));
        assert_eq!(frame_length(&[0xFF; 20]), Err(DecodeError::NotStun));
    }
}
