//! The end that waits: until the peer has acknowledged everything.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    TcpConnection,
    socket::Patience,
    try_hold_until,
    unacknowledged::{Outstanding, Unacknowledged},
};
use crate::{
    StreamError,
    io::{clock, lock::Lock as _},
};

impl TcpConnection {
    /// Sends the end and waits until all is acknowledged. Where the system does not tell, or the verdict on an early stream is
    /// still to come, until the peer has ended too, which it does once it has read everything.
    pub(crate) fn close(&self, deadline: Instant) -> Result<(), StreamError> {
        {
            let mut ends = self.ends.hold();
            if let Some(error) = ends.failed.as_ref().or(ends.write_failed.as_ref()) {
                return Err(error.clone());
            }
            ends.write_shut = true;
        }
        let local = self.socket.local_addr().ok();
        let unacknowledged = local.and_then(|local| Unacknowledged::of(local, self.remote));
        let send = try_hold_until(&self.send, deadline);
        send.ok_or(StreamError::TimedOut)?.end(self, Patience::until(deadline))?;
        let unjudged = self.receive.try_lock().is_ok_and(|receive| receive.is_unjudged());
        match unacknowledged.filter(|_| !unjudged) {
            Some(unacknowledged) => self.wait_acknowledged(&unacknowledged, deadline),
            None => self.wait_ended(deadline),
        }
    }

    fn wait_ended(&self, deadline: Instant) -> Result<(), StreamError> {
        let receive = try_hold_until(&self.receive, deadline);
        let mut receive = receive.ok_or(StreamError::TimedOut)?;
        let mut forgotten = [0; 4096];
        while receive.read(self, &mut forgotten, Some(deadline))? > 0 {}
        Ok(())
    }

    fn wait_acknowledged(
        &self,
        unacknowledged: &Unacknowledged,
        deadline: Instant,
    ) -> Result<(), StreamError> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let outstanding = unacknowledged.ask();
            if let Some(error) = &self.ends.hold().failed {
                return Err(error.clone());
            }
            match outstanding {
                Some(Outstanding::Bytes(0)) => return Ok(()),
                // In good order, or broken.
                Some(Outstanding::Gone) => {
                    return self.socket.take_error().map_or(Ok(()), |error| Err(self.receive_error(&error)));
                }
                Some(Outstanding::Bytes(_)) | None => {}
            }
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(StreamError::TimedOut);
            }
            // Nothing wakes us when an acknowledgement comes.
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// On a near path acknowledgements are there at once.
const SHORTEST_PAUSE: Duration = Duration::from_micros(100);
/// A look costs some microseconds; nobody is to wait for much longer than the path takes.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
