use std::net::TcpStream;
use std::time::Instant;

use socket2::Socket;

use crate::error::PunchError;
use crate::io::run::RunError;
use crate::io::run_tcp::{TcpOutcome, run_tcp};
use crate::io::{clock, entropy};
use crate::late_addresses::LateAddresses;
use crate::protocol::{PubRendezvousInfo, TcpPuncher};
use crate::{MappingContext, PrivRendezvousInfo};

/// Punches a hole for TCP and returns the stream that came about: by dialling the peer, by being dialled by it, or by both
/// at once. The peer must call this as well, within a few seconds, with the other halves of the information.
///
/// `socket` is that of a [`MappedTcpSocket`](crate::MappedTcpSocket), whose endpoints must be in `ours`. Blocks until the
/// peer has proved itself on a connection: about three round trips if both call at once; at most until `deadline`. The
/// stream is in blocking mode, and every byte on it is the application's. It is not encrypted.
///
/// # Errors
///
/// [`PunchError::Hopeless`] at once if the two NATs cannot be brought together, [`PunchError::TimedOut`] with the first
/// obstacle at the deadline, [`PunchError::Interrupted`] if someone [interrupts](crate::Interrupter) the context.
pub fn tcp_punch_hole(
    socket: Socket,
    ours: PrivRendezvousInfo,
    theirs: &PubRendezvousInfo,
    context: &MappingContext,
    deadline: Instant,
) -> Result<TcpStream, PunchError> {
    punch(socket, ours, theirs, None, context, deadline)
}

/// The same, while either side may still learn addresses: those that `late` is [told](LateAddresses::tell) are tried from then
/// on, and nothing is hopeless before it has had the last.
///
/// # Errors
///
/// As for [`tcp_punch_hole`].
pub fn tcp_punch_hole_with(
    socket: Socket,
    ours: PrivRendezvousInfo,
    theirs: &PubRendezvousInfo,
    late: &LateAddresses,
    context: &MappingContext,
    deadline: Instant,
) -> Result<TcpStream, PunchError> {
    punch(socket, ours, theirs, Some(late), context, deadline)
}

fn punch(
    socket: Socket,
    ours: PrivRendezvousInfo,
    theirs: &PubRendezvousInfo,
    late: Option<&LateAddresses>,
    context: &MappingContext,
    deadline: Instant,
) -> Result<TcpStream, PunchError> {
    let start = clock::now();
    let endpoints = ours.endpoints().to_vec();
    let keys = ours.agree(theirs)?;
    let mut puncher = TcpPuncher::new(start, &endpoints, theirs.endpoints(), keys, entropy::seed());
    if late.is_some() {
        puncher = puncher.more_to_come();
    }
    match run_tcp(&mut puncher, socket, late, deadline, context.waits()) {
        Ok(TcpOutcome::Punched(stream)) => {
            tracing::debug!(elapsed = ?clock::now().duration_since(start), "punched a hole for TCP");
            Ok(stream)
        }
        Ok(TcpOutcome::Hopeless(obstacle)) => Err(PunchError::Hopeless(obstacle)),
        Err(RunError::TimedOut) => Err(PunchError::TimedOut {
            waited: clock::now().duration_since(start),
            obstacle: puncher.obstacle(),
        }),
        Err(RunError::Interrupted) => Err(PunchError::Interrupted),
        Err(RunError::Io(error)) => Err(PunchError::Socket(error)),
    }
}
