//! Waiting for the only socket there is in a receive, which saves the poll before it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{alarm::Alarm, lock::Lock as _, sources::Sources, udp::UdpSocket};

/// Where a dialogue goes over one socket, one datagram at a time, much of what a wait costs is the poll. So after some such turns,
/// and as long as there is nothing else to watch, the leader waits in the receive itself.
///
/// What only the poll would tell is told by the [`Alarm`]. Should its datagram get lost, such as by a packet filter, the receive
/// still ends after [`LONGEST_RECEIVE`], and the poll is asked.
pub(super) struct Direct {
    alarm: Arc<Alarm>,
    /// So many turns in a row were of a dialogue.
    turns: u32,
    /// The socket that is received from, as long as it is, and how often the sources had changed by then.
    socket: Option<(Arc<UdpSocket>, u64)>,
}

impl Direct {
    pub(super) fn new(alarm: Arc<Alarm>) -> Self {
        Self { alarm, turns: 0, socket: None }
    }

    /// Whether there is a dialogue.
    pub(super) fn is_time(&self) -> bool {
        // The poll is asked now and then, since a receive of one datagram does not show whether more are there.
        IS_KNOWN_TO_WORK && self.turns >= TURNS_BEFORE && !self.turns.is_multiple_of(TURNS_BETWEEN)
    }

    /// The socket to receive from, if it is the only source.
    pub(super) fn socket(&mut self, sources: &Mutex<Sources>) -> Option<Arc<UdpSocket>> {
        let sources = sources.hold();
        match &self.socket {
            Some((socket, changes)) if *changes == sources.changes() => Some(socket.clone()),
            Some(_) => {
                drop(sources);
                self.stop();
                None
            }
            None => {
                let (socket, changes) = (sources.only_socket(), sources.changes());
                drop(sources);
                self.begin(socket?, changes)
            }
        }
    }

    fn begin(&mut self, socket: Arc<UdpSocket>, changes: u64) -> Option<Arc<UdpSocket>> {
        if let Err(error) = socket.set_waiting(true) {
            tracing::debug!(%error, "cannot wait in a receive");
            self.turns = 0;
            return None;
        }
        self.alarm.set_bell(Some(socket.clone()));
        self.socket = Some((socket.clone(), changes));
        Some(socket)
    }

    /// A turn is over; `dialogue`: it brought one datagram, and nobody else than the leader was told of anything.
    pub(super) fn turned(&mut self, dialogue: bool) {
        self.turns = if dialogue { self.turns.wrapping_add(1) } else { 0 };
    }

    /// The socket is received from after a poll again.
    pub(super) fn stop(&mut self) {
        let Some((socket, _)) = self.socket.take() else { return };
        if let Err(error) = socket.set_waiting(false) {
            tracing::warn!(%error, "a receive may wait for some milliseconds");
        }
        self.alarm.set_bell(None);
    }
}

/// The longest wait in a receive, and in a send meanwhile: the most by which anything can be late that the leader was not told of.
pub(super) const LONGEST_RECEIVE: Duration = Duration::from_millis(8);
/// A timer nearer than this is left to the poll, which is exact: the system rounds the time of a receive up by a tick or two.
pub(super) const NEAREST_TIMER: Duration = Duration::from_millis(12);
const TURNS_BEFORE: u32 = 16;
const TURNS_BETWEEN: u32 = 32;
/// Elsewhere a receive with a time-out is not known to be as cheap, or to end by a datagram from the socket itself.
const IS_KNOWN_TO_WORK: bool = cfg!(any(target_os = "linux", target_os = "android"));
