//! Input that nobody will read.

use std::{io, mem::MaybeUninit};

use mio::net::TcpStream;
use socket2::SockRef;

/// Up to where input was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgotten {
    /// There is no more for now.
    All,
    /// The peer has ended.
    End,
    /// As much as is good for one turn; there may be more.
    Enough,
}

/// Throws away what has come, whatever the mode of the socket; tells how many bytes that were. `last`: the end of the input may
/// have come.
pub(crate) fn forget(socket: &TcpStream, last: bool) -> io::Result<(Forgotten, usize)> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut forgotten = 0;
    while forgotten < BYTES_PER_TURN {
        match socket.try_io(|| SockRef::from(socket).recv_with_flags(&mut buffer, DO_NOT_WAIT)) {
            Ok(0) => return Ok((Forgotten::End, forgotten)),
            // The end stands behind what the socket still had. Windows tells of nothing before a call that would block.
            Ok(received) if last && received < buffer.len() && !cfg!(windows) => {
                return Ok((Forgotten::End, forgotten + received));
            }
            Ok(received) => forgotten += received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok((Forgotten::All, forgotten));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((Forgotten::Enough, forgotten))
}

const BUFFER_BYTES: usize = 16 << 10;
/// Others wait for the crank meanwhile; this takes less than a millisecond.
const BYTES_PER_TURN: usize = 1 << 20;
/// `recv(2)`; std has no name for it. On Windows sockets of ours never wait.
const DO_NOT_WAIT: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
    0x40
} else if cfg!(unix) {
    0x80
} else {
    0
};
