//! Who has asked of late without announcing anything: such beacons are no peers, and yet the copies of one question (by
//! broadcast and by multicast) must not be answered twice.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::Packet;

/// The latest questions of one link.
#[derive(Debug, Default)]
pub(super) struct Seekers {
    latest: VecDeque<Question>,
}

#[derive(Debug, PartialEq, Eq)]
struct Question {
    id: Vec<u8>,
    /// Stands for the identity where there is none.
    source: Option<SocketAddr>,
    sequence: u32,
}

impl Seekers {
    /// Whether this question was not heard before.
    pub(super) fn is_news(&mut self, source: SocketAddr, packet: &Packet<'_>) -> bool {
        let source = packet.id.is_empty().then_some(source);
        let question = Question { id: packet.id.to_vec(), source, sequence: packet.sequence };
        if self.latest.contains(&question) {
            return false;
        }
        if self.latest.len() == MAX_QUESTIONS {
            self.latest.pop_front();
        }
        self.latest.push_back(question);
        true
    }
}

/// Copies come within milliseconds of each other. If a flood pushes a question out before its copies come, they are
/// answered too, within the bounds of all answers.
const MAX_QUESTIONS: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Kind;
    use super::*;

    #[test]
    fn the_copies_of_a_question_are_told_from_the_next_question_and_from_anothers() {
        let mut seekers = Seekers::default();

        assert!(seekers.is_news(source(1), &seek(b"a", 1)));
        assert!(!seekers.is_news(source(2), &seek(b"a", 1)));
        assert!(seekers.is_news(source(1), &seek(b"a", 2)));
        assert!(seekers.is_news(source(1), &seek(b"b", 1)));
        assert!(seekers.is_news(source(1), &seek(b"", 1)));
        assert!(seekers.is_news(source(2), &seek(b"", 1)));
        assert!(!seekers.is_news(source(2), &seek(b"", 1)));
    }

    #[test]
    fn questions_without_end_take_bounded_room() {
        let mut seekers = Seekers::default();

        for number in 0..10_000 {
            assert!(seekers.is_news(source(1), &seek(b"a", number)));
        }

        assert_eq!(seekers.latest.len(), MAX_QUESTIONS);
    }

    fn seek(id: &[u8], sequence: u32) -> Packet<'_> {
        let interval = Duration::from_secs(1);
        Packet { kind: Kind::Seek, sequence, interval, id, data: &[], known: &[] }
    }

    fn source(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }
}
