//! Attempts to leave relays: what the thread `crust-improve` does.

use transport::{
    PathKind,
    testing::{MeetingId, StreamId},
};

use super::{
    calls::{ASKING, Purpose},
    service::{Detour, Happening, Service},
};
use crate::protocol::introduction::ConnectionMark;

impl Service {
    /// Whether the meeting was one of ours.
    pub(super) fn call_improved(&mut self, meeting: MeetingId, outcome: &Result<(), String>) -> bool {
        let found = self.introduced.iter().find(|(_, one)| one.meeting == meeting).map(|(id, _)| *id);
        if let Some(id) = found {
            match outcome {
                Ok(()) => self.improvement_over(id, true),
                Err(reason) => self.introduction_failed(id, reason),
            }
        }
        found.is_some()
    }

    pub(super) fn improvement_over(&mut self, id: u64, worked: bool) {
        let Some(Purpose::Improve { detour, .. }) = self.introduced.get(&id).map(|one| one.purpose.clone())
        else {
            return;
        };
        self.end_introduction(id);
        self.improving.over(self.now, detour.peer, worked);
        self.tell(Happening::Improved(worked));
    }

    /// Begins what is due to leave relays.
    pub(super) fn go_on_improving(&mut self) -> bool {
        let mut moved = false;
        loop {
            let node = &self.node;
            let is_open = |detour: &Detour| {
                let relayed = node.path(detour.stream).is_some_and(|(kind, _)| kind == PathKind::Relayed);
                relayed && node.end(detour.stream).is_none()
            };
            let Some(detour) = self.improving.poll_start(self.now, is_open) else { return moved };
            moved = true;
            match self.mark_of(detour.stream) {
                Some(mark) => {
                    let (introducer, peer, now) = (detour.introducer, detour.peer, self.now);
                    let purpose = Purpose::Improve { detour, mark };
                    self.introduce(purpose, introducer, peer, now, now + ASKING);
                }
                None => self.improving.over(self.now, detour.peer, false),
            }
        }
    }

    /// What the two ends call the connection of a stream.
    pub(super) fn mark_of(&self, stream: StreamId) -> Option<ConnectionMark> {
        let mut mark = ConnectionMark::default();
        self.node.export(stream, &mut mark, b"EXPERIMENTAL-crust-connection")?;
        Some(mark)
    }
}
