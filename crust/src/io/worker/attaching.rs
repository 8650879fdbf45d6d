//! Getting in touch with introducers.

use std::time::Duration;

use transport::{ConnectOptions, Stream, StreamKey};

use super::{Command, Connection, Role, Turning};
use crate::{Introducer, io::clock, protocol::introducer::frame::Frame, shared::INTRODUCE};

impl Turning {
    pub(super) fn dial(&mut self, index: usize, introducer: Introducer) {
        let (shared, commands) = (self.shared.clone(), self.commands.clone());
        let work = move || {
            let options = ConnectOptions::new().protocol(INTRODUCE.clone()).timeout(DIALLING);
            let stream =
                Stream::connect_with(&shared.transport, &introducer.in_dialling_order(false)[..], &options);
            let outcome = stream.map_err(|error| error.to_string());
            commands.give(Command::Dialled { attachment: index, outcome });
        };
        self.help("crust-attach", work, |turning| {
            turning.attachments[index].1.handle_failure(clock::now());
        });
    }

    pub(super) fn ask(&mut self, index: usize, stream: Stream) {
        match self.set.add(stream) {
            Ok(key) => {
                self.connections.insert(key, Connection::new(Role::Introducer(index)));
                self.attachments[index].1.handle_dialled(clock::now());
                self.send(key, &Frame::Attach);
            }
            Err(error) => self.unattached(index, error.to_string()),
        }
    }

    /// The introducer calls us from now on.
    pub(super) fn attached(&mut self, index: usize, key: StreamKey, stun_port: u16) {
        let (introducer, attachment) = &mut self.attachments[index];
        let rhythm = attachment.handle_attached(clock::now());
        let remote = self.set.get(key).map(|stream| stream.path().remote);
        introducer.stun_port = (stun_port != 0).then_some(stun_port);
        let introducer = introducer.clone();
        self.shared.attached(introducer, remote.map(|remote| remote.ip()));
        // So that nobody who knocks waits for it.
        let shared = self.shared.clone();
        self.help("crust-learn", move || shared.learn_in_advance(), |_| ());
        self.keep_rhythm(key, rhythm);
    }

    pub(super) fn unattached(&mut self, index: usize, reason: String) {
        let (introducer, attachment) = &mut self.attachments[index];
        attachment.handle_failure(clock::now());
        let introducer = introducer.clone();
        self.shared.detached(&introducer, reason);
    }
}

/// What cannot be reached within some round trips is tried anew, which takes less than a packet that is repeated late.
const DIALLING: Duration = Duration::from_secs(5);
