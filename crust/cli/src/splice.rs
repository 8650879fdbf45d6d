use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use crust::Stream;

use crate::pipe::reset;

/// Joins a TCP connection and a stream until both directions have ended. The end of one direction is passed on and the
/// other goes on; a connection that breaks on one side is broken on the other as well, never ended cleanly.
pub(crate) fn splice(socket: &TcpStream, stream: &Stream) -> io::Result<()> {
    let result = thread::scope(|scope| {
        let up = scope.spawn(|| {
            let result = carry(socket, stream, || stream.shutdown(Shutdown::Write).map_err(Into::into));
            result.inspect_err(|_| break_both(socket, stream))
        });
        let down = carry(stream, socket, || socket.shutdown(Shutdown::Write));
        let down = down.inspect_err(|_| break_both(socket, stream));
        up.join().expect("carrying does not panic").and(down)
    });
    if result.is_err() {
        // The peer of the socket learns of it by a reset instead of an end.
        let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }
    result
}

fn carry(mut from: impl Read, mut to: impl Write, end: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return end(),
            Ok(length) => to.write_all(&buffer[..length]).and_then(|()| to.flush())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Wakes the other direction, wherever it waits.
fn break_both(socket: &TcpStream, stream: &Stream) {
    reset(stream);
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    // Shutting down the reading side only keeps the reset for the moment when the socket is closed.
    let _ = socket.shutdown(Shutdown::Read);
}

/// Two a connection.
const BUFFER_BYTES: usize = 64 << 10;
