//! TCP streams that nobody holds any more, until the peer has everything.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mio::{Interest, Token, net::TcpStream};
use socket2::SockRef;

use super::{clock, lock::Lock as _, sources::Source};
use crate::transport::Shared;

/// Sends what is left of a stream and its end, then reads and forgets until the peer ends too: closing a socket with
/// unread input makes the kernel send a RST, which destroys what is still on its way to the peer.
#[derive(Debug)]
pub(crate) struct Ending {
    token: Token,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    socket: TcpStream,
    unsent: Vec<u8>,
    sent: usize,
    write_ended: bool,
    forgotten_bytes: usize,
}

impl Ending {
    /// Takes a socket over; `unsent` are bytes that must still go out before the end of the stream. Returns at once.
    pub(crate) fn begin(shared: &Shared, socket: std::net::TcpStream, unsent: Vec<u8>) {
        if socket.set_nonblocking(true).is_err() {
            return; // The socket is gone already.
        }
        let socket = TcpStream::from_std(socket);
        let mut state = State { socket, unsent, sent: 0, write_ended: false, forgotten_bytes: 0 };
        // Usually everything goes at once, so that the peer sees the end without another turn of the crank.
        if state.advance() {
            return;
        }
        if shared.is_closed() {
            return state.linger(clock::now() + shared.config.linger);
        }
        if let Err(error) = Self::watch(shared, state) {
            tracing::debug!(%error, "a stream ends without being watched");
        }
    }

    fn watch(shared: &Shared, mut state: State) -> io::Result<()> {
        let mut sources = shared.sources.hold();
        let token = sources.reserve();
        // Asked for room while there is some, the poll would answer at once and for nothing.
        let interest =
            if state.write_ended { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        if let Err(error) = shared.registry.register(&mut state.socket, token, interest) {
            sources.remove(token);
            return Err(error);
        }
        sources.fill(token, Source::Ending(Arc::new(Self { token, state: Mutex::new(state) })));
        let timer = clock::now() + ENDING_TIMEOUT;
        sources.set_timer(token, Some(timer));
        drop(sources);
        shared.crank.poke(timer);
        Ok(())
    }

    /// Does what can be done without waiting, and goes when all is done.
    pub(crate) fn handle_ready(&self, shared: &Shared) {
        let done = self.state.hold().advance();
        if done {
            shared.sources.hold().remove(self.token);
        }
    }

    /// Whether bytes are left that the kernel has not taken.
    pub(crate) fn is_unsent(&self) -> bool {
        !self.state.hold().write_ended
    }

    /// Makes the close of the socket wait until the peer's kernel has everything, at most until the deadline.
    pub(crate) fn finish(&self, deadline: Instant) {
        let mut state = self.state.hold();
        state.advance();
        state.linger(deadline);
    }
}

impl State {
    /// Tells whether the peer has ended too, or cannot be reached any more.
    fn advance(&mut self) -> bool {
        self.write().is_err() || self.forget_input()
    }

    fn write(&mut self) -> io::Result<()> {
        while self.sent < self.unsent.len() {
            match self.socket.write(&self.unsent[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !self.write_ended {
            self.write_ended = true;
            self.unsent = Vec::new();
            // It fails when the stream was shut down before, which is as good.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    fn forget_input(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        while self.forgotten_bytes < MAX_FORGOTTEN_BYTES {
            match self.socket.read(&mut buffer) {
                Ok(0) => return self.write_ended,
                Ok(read) => self.forgotten_bytes += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        true
    }

    /// `SO_LINGER` makes the close itself wait for the acknowledgement; nothing else portable tells of it.
    fn linger(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(clock::now());
        // Whole seconds is all the option knows; 0 would throw everything away.
        let whole = Duration::from_secs(left.as_secs() + 1);
        if let Err(error) = SockRef::from(&self.socket).set_linger(Some(whole)) {
            tracing::debug!(%error, "a stream ends without waiting for its peer");
        }
    }
}

/// A peer that neither reads nor ends keeps the socket no longer than this.
pub(crate) const ENDING_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that goes on sending to a stream that nobody reads is cut off after so much.
const MAX_FORGOTTEN_BYTES: usize = 1 << 20;
