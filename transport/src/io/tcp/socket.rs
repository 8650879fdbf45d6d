//! The system calls of one established TCP stream. What differs between systems is here and nowhere else.

use std::{
    io,
    time::{Duration, Instant},
};

use socket2::{Socket, TcpKeepalive};

use crate::io::clock;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::send_last;
#[cfg(unix)]
pub(super) use unix::{Little, StreamSocket};
#[cfg(windows)]
pub(crate) use windows::send_last;
#[cfg(windows)]
pub(super) use windows::{Little, StreamSocket};

/// How long a call may wait, and for what part of it there is still time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all: the stream is non-blocking.
    None,
    /// Until the deadline; `timeout` is what is left of it when the call begins, so that the first system call needs no clock.
    Until { deadline: Instant, timeout: Duration },
    /// For ever.
    Endless,
}

impl Patience {
    pub(super) fn new(nonblocking: bool, timeout: Option<Duration>) -> Self {
        match timeout {
            _ if nonblocking => Self::None,
            // The system takes zero for no timeout at all.
            Some(timeout) => Self::Until {
                deadline: clock::now() + timeout,
                timeout: timeout.max(Duration::from_micros(1)),
            },
            None => Self::Endless,
        }
    }

    pub(super) fn until(deadline: Instant) -> Self {
        Self::Until { deadline, timeout: deadline.saturating_duration_since(clock::now()) }.or_a_moment()
    }

    /// What is left after a system call that did not finish the work; `None` when the time is over.
    pub(super) fn rest(self) -> Option<Self> {
        let Self::Until { deadline, .. } = self else { return Some(self) };
        let timeout = deadline.saturating_duration_since(clock::now());
        (!timeout.is_zero()).then_some(Self::Until { deadline, timeout })
    }

    fn or_a_moment(self) -> Self {
        match self {
            Self::Until { deadline, timeout } => {
                Self::Until { deadline, timeout: timeout.max(Duration::from_micros(1)) }
            }
            other => other,
        }
    }
}

/// The timeout that the socket has in one direction, so that it is set only when it changes. Guarded by that direction's lock.
#[derive(Debug, Default)]
pub(super) struct AppliedTimeout {
    #[cfg(unix)]
    applied: Option<Duration>,
    /// It is the handshake's: a call that may wait for ever begins with it, as most are over by then.
    #[cfg(unix)]
    is_left_over: bool,
}

impl AppliedTimeout {
    #[cfg_attr(not(unix), expect(unused_variables, reason = "sockets have no timeouts there"))]
    pub(super) fn left_over(timeout: Option<Duration>) -> Self {
        Self {
            #[cfg(unix)]
            applied: timeout,
            #[cfg(unix)]
            is_left_over: timeout.is_some(),
        }
    }
}

#[cfg(unix)]
impl AppliedTimeout {
    fn apply(
        &mut self,
        patience: Patience,
        set: impl FnOnce(Option<Duration>) -> io::Result<()>,
    ) -> io::Result<()> {
        let timeout = match patience {
            Patience::None => return Ok(()),
            Patience::Until { timeout, .. } => Some(timeout),
            Patience::Endless => None,
        };
        if self.applied != timeout {
            set(timeout)?;
            self.applied = timeout;
        }
        self.is_left_over = false;
        Ok(())
    }
}

/// How a system looks after a silent peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watch {
    /// The first probe goes out after so much silence.
    idle: Duration,
    interval: Duration,
    dead_after: Duration,
}

impl Watch {
    /// The first probe after a third of the time, then five more within it: one lost probe ends nothing.
    pub(crate) fn new(dead_after: Duration) -> Self {
        Self { idle: dead_after / 3, interval: dead_after / 8, dead_after }
    }

    /// The first probe then, and four more until the peer counts as lost.
    pub(crate) fn with_keep_alive(keep_alive: Duration, dead_after: Duration) -> Self {
        let interval = dead_after.saturating_sub(keep_alive) / 5;
        Self { idle: keep_alive, interval, dead_after }
    }

    pub(crate) const fn dead_after(&self) -> Duration {
        self.dead_after
    }
}

/// Lets the kernel find out when the peer is silent for too long, also while nothing is sent.
pub(crate) fn watch_peer(socket: &Socket, watch: Option<Watch>) -> io::Result<()> {
    let Some(Watch { idle, interval, dead_after }) = watch else { return Ok(()) };
    let (idle, interval) = (idle.max(SHORTEST_PROBE), interval.max(SHORTEST_PROBE));
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval))?;
    // With it set, Linux counts the time and not the probes, and data without acknowledgement as well (RFC 5482).
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(dead_after))?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = dead_after;
    Ok(())
}

/// A record of a small message, and the next.
pub(super) const LITTLE_BYTES: usize = 2 << 10;
/// The options count in whole seconds.
const SHORTEST_PROBE: Duration = Duration::from_secs(1);
