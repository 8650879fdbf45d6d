//! How long the streams between a peer and its introducers are silent, on both sides.

use std::time::Duration;

use transport::StreamKey;

use super::Turning;
use crate::protocol::{
    introducer::{frame::Frame, silence},
    pulse::Rhythm,
};

impl Turning {
    /// An introducer is to speak after another silence from now on, and we a little later if it does not.
    pub(super) fn keep_rhythm(&mut self, key: StreamKey, rhythm: Rhythm) {
        let Some(stream) = self.set.get(key) else { return };
        tracing::debug!(introducer = %stream.public_key(), ?rhythm, "the attachment may be silent for so long");
        stream.set_keep_alive(rhythm.keep_alive, rhythm.dead_after);
        self.send(key, &Frame::Rest { seconds: rhythm.seconds });
    }

    /// The same for a peer whom we introduce. What we say to it then is answered, so that nothing else need be said.
    pub(super) fn let_rest(&self, key: StreamKey, frame: &Frame) {
        let Frame::Rest { seconds } = frame else { return };
        if let (Some(stream), Some(silence)) = (self.set.get(key), silence(*seconds)) {
            stream.set_keep_alive(silence + GRACE, silence + PATIENCE);
        }
    }
}

/// It speaks before, if it lives.
const GRACE: Duration = Duration::from_secs(10);
/// For it to speak, and for what gets lost.
const PATIENCE: Duration = Duration::from_secs(25);
