//! Streams to introducers, and what comes by them.

use std::time::Duration;

use transport::{
    PathKind,
    testing::{DialId, MeetingId, StreamId},
};

use super::{
    calls::Introduced,
    service::{Attached, Happening, Service},
};
use crate::{
    protocol::introducer::frame::{Frame, Frames},
    shared::INTRODUCE,
};

impl Service {
    pub(super) fn accept(&mut self, stream: StreamId) {
        let Some((peer, label)) = self.node.peer(stream) else { return };
        if *label != *INTRODUCE {
            return self.accepted(stream);
        }
        let source = self.node.path(stream).map(|(_, addr)| addr.ip());
        let taken = self
            .hosting
            .as_mut()
            .zip(source)
            .is_some_and(|(hosting, source)| hosting.connect(self.now, stream, peer, source));
        if taken {
            self.pipes.insert(stream, Frames::default());
        } else {
            self.node.drop_stream(self.now, stream);
        }
    }

    pub(super) fn accepted(&mut self, stream: StreamId) {
        self.accepted.push(stream);
        let kind = self.node.path(stream).map_or(PathKind::Direct, |(kind, _)| kind);
        self.tell(Happening::Accepted(stream, kind));
    }

    pub(super) fn dialled(&mut self, dial: DialId, outcome: Result<StreamId, String>) {
        let ours = |one: &Attached| one.dial.is_some_and(|(known, _)| known == dial);
        let Some(index) = self.attachments.iter().position(ours) else {
            return self.call_dialled(dial, outcome);
        };
        let attached = &mut self.attachments[index];
        attached.dial = None;
        match outcome {
            Ok(stream) => {
                attached.stream = Some(stream);
                attached.attachment.handle_dialled(self.now);
                self.pipes.insert(stream, Frames::default());
                self.send(stream, &Frame::Attach);
            }
            Err(_) => attached.attachment.handle_failure(self.now),
        }
    }

    /// Keeps in touch with introducers.
    pub(super) fn attach(&mut self) -> bool {
        let (now, mut moved) = (self.now, false);
        for index in 0..self.attachments.len() {
            let attached = &mut self.attachments[index];
            if attached.attachment.poll_dial(now) {
                let dial = self.node.dial(now, attached.addr, attached.key, &INTRODUCE);
                self.attachments[index].dial = Some((dial, now + DIALLING));
                moved = true;
            } else if let Some((dial, _)) = attached.dial.take_if(|(_, until)| *until <= now) {
                attached.attachment.handle_failure(now);
                self.node.cancel(now, dial);
                moved = true;
            } else if attached.attachment.is_late(now)
                && let Some(stream) = attached.stream
            {
                self.lose(stream);
                moved = true;
            }
        }
        moved
    }

    pub(super) fn read_pipes(&mut self) -> bool {
        let mut moved = false;
        for stream in self.pipes.keys().copied().collect::<Vec<_>>() {
            let bytes = self.node.read(stream);
            moved |= !bytes.is_empty();
            let Some(frames) = self.pipes.get_mut(&stream) else { continue };
            frames.push(&bytes);
            while let Some(frames) = self.pipes.get_mut(&stream) {
                match frames.next() {
                    Ok(Some(frame)) => self.take(stream, frame),
                    Ok(None) => break,
                    Err(_) => {
                        self.lose(stream);
                        break;
                    }
                }
            }
            if self.pipes.contains_key(&stream) && self.node.end(stream).is_some() {
                self.lose(stream);
                moved = true;
            }
        }
        moved
    }

    pub(super) fn take(&mut self, stream: StreamId, frame: Frame) {
        if self.hosting.as_mut().is_some_and(|hosting| hosting.take(self.now, stream, &frame)) {
            return;
        }
        let Some(index) = self.attachments.iter().position(|one| one.stream == Some(stream)) else {
            return self.call_heard(stream, frame);
        };
        match frame {
            Frame::Attached { .. } => {
                self.attachments[index].attachment.handle_attached(self.now);
                self.tell(Happening::Attached);
                // Learned in advance, so that nobody who knocks waits for it.
                let meeting = self.open_meeting(true, false);
                self.in_advance(meeting);
            }
            Frame::Knock { call, key: _, knock } => self.ring(index, stream, call, &knock),
            Frame::Note { call, note } => self.noted(stream, call, &note),
            Frame::Vouch { call, source: Some(source) } => self.vouched(stream, call, source),
            Frame::End { call, .. } => self.hung_up(stream, call),
            Frame::Relay(_) | Frame::Still => {}
            Frame::Attach | Frame::Rest { .. } | Frame::Vouch { source: None, .. } => self.lose(stream),
        }
    }

    /// A meeting that is for nobody ends when what can be learned is.
    pub(super) fn in_advance(&mut self, meeting: MeetingId) {
        let id = self.number();
        self.introduced.insert(id, Introduced::in_advance(self.now, meeting));
    }

    /// A stream to an introducer or a client is of no more use.
    pub(super) fn lose(&mut self, stream: StreamId) {
        self.pipes.remove(&stream);
        self.node.drop_stream(self.now, stream);
        if self.hosting.as_mut().is_some_and(|hosting| hosting.disconnect(stream)) {
            return;
        }
        if let Some(index) = self.attachments.iter().position(|one| one.stream == Some(stream)) {
            self.attachments[index].stream = None;
            self.attachments[index].attachment.handle_failure(self.now);
            self.tell(Happening::Detached);
            let gone: Vec<u32> = self
                .ringing
                .keys()
                .filter(|(through, _)| *through == stream)
                .map(|(_, call)| *call)
                .collect();
            for call in gone {
                self.hung_up(stream, call);
            }
            return;
        }
        self.call_lost(stream);
    }
}

/// A dial of an introducer.
const DIALLING: Duration = Duration::from_secs(5);
