//! TCP streams that nobody holds any more, until the peer has everything.

use std::{
    io::{self, Write as _},
    net::Shutdown,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mio::{Interest, Token, net::TcpStream};
use socket2::SockRef;

use super::{
    clock,
    forget::{Forgotten, forget},
    later::{Item, Later},
    lock::Lock as _,
    sources::Source,
    tcp::send_last,
};
use crate::transport::Shared;

/// Sends what is left of a stream and its end, then reads and forgets until the peer ends too: closing a socket with
/// unread input makes the kernel send a RST, which destroys what is still on its way to the peer.
#[derive(Debug)]
pub(crate) struct Ending {
    token: Token,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    socket: TcpStream,
    unsent: Vec<u8>,
    sent: usize,
    write_ended: bool,
    forgotten_bytes: usize,
}

/// What is to be done after a look at the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The peer has ended too, or cannot be reached any more.
    Done,
    Wait,
    /// There is more to read.
    Again,
}

impl Ending {
    /// Takes a socket over; `unsent` are bytes that must still go out before the end of the stream. Returns at once.
    pub(crate) fn begin(shared: &Shared, socket: std::net::TcpStream, unsent: Vec<u8>, closes: bool) {
        // Usually everything goes at once, so that the peer sees the end without another turn of the crank.
        let Ok(sent) = send_at_once(&socket, &unsent) else { return };
        let write_ended = sent == unsent.len();
        if write_ended {
            if closes {
                return; // Nothing can come that the close would answer with a RST, and it sends the end as well.
            }
            // It fails when the stream was shut down before, which is as good.
            let _ = socket.shutdown(Shutdown::Write);
        }
        if !write_ended && socket.set_nonblocking(true).is_err() {
            return; // The socket is gone already.
        }
        let unsent = if write_ended { Vec::new() } else { unsent };
        let socket = TcpStream::from_std(socket);
        let mut state = State { socket, unsent, sent, write_ended, forgotten_bytes: 0 };
        if shared.is_closed() {
            if state.advance(false) != Step::Done {
                state.linger(clock::now() + shared.config.linger);
            }
            return;
        }
        if state.write_ended {
            Later::put(shared, Item::Ending(state))
        } else {
            Self::watch_or_drop(shared, state)
        }
    }

    fn watch_or_drop(shared: &Shared, state: State) {
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

    /// Does what can be done without waiting, and goes when all is done; `last` when the end of the input may have come. Tells
    /// whether to look again without an event.
    pub(crate) fn handle_ready(&self, shared: &Shared, last: bool) -> bool {
        let step = self.state.hold().advance(last);
        if step == Step::Done {
            shared.sources.hold().remove(self.token);
        }
        step == Step::Again
    }

    /// Whether bytes are left that the kernel has not taken.
    pub(crate) fn is_unsent(&self) -> bool {
        !self.state.hold().write_ended
    }

    /// Makes the close of the socket wait until the peer's kernel has everything, at most until the deadline.
    pub(crate) fn finish(&self, deadline: Instant) {
        self.state.hold().linger_until(deadline);
    }
}

impl State {
    /// The peer has had a moment; what is not over now is watched.
    pub(crate) fn go_on(mut self, shared: &Shared) {
        if self.advance(false) != Step::Done {
            Ending::watch_or_drop(shared, self);
        }
    }

    /// Makes the close of the socket wait until the peer's kernel has everything, at most until the deadline.
    pub(crate) fn finish(mut self, deadline: Instant) {
        self.linger_until(deadline);
    }

    fn linger_until(&mut self, deadline: Instant) {
        self.advance(false);
        self.linger(deadline);
    }

    fn advance(&mut self, last: bool) -> Step {
        if self.write().is_err() {
            return Step::Done;
        }
        let Ok((forgotten, bytes)) = forget(&self.socket, last) else { return Step::Done };
        self.forgotten_bytes += bytes;
        match forgotten {
            _ if self.forgotten_bytes >= MAX_FORGOTTEN_BYTES => Step::Done,
            Forgotten::Enough => Step::Again,
            Forgotten::All => Step::Wait,
            Forgotten::End if self.write_ended => Step::Done,
            Forgotten::End => Step::Wait,
        }
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

/// Tells how much the kernel had room for.
fn send_at_once(socket: &std::net::TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match send_last(socket, &bytes[sent..]) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// A peer that neither reads nor ends keeps the socket no longer than this.
pub(crate) const ENDING_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that goes on sending to a stream that nobody reads is cut off after so much: more than systems keep of what was not
/// read, so that whatever lay there never is the reason for a RST.
const MAX_FORGOTTEN_BYTES: usize = 64 << 20;
