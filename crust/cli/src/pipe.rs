use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    net::Shutdown,
    thread,
};

use crossbeam::{
    channel::{Receiver, bounded},
    select,
};
use crust::Stream;

use crate::failure::Failure;

/// Standard input, read by one thread for the whole process: a read of it cannot be interrupted, so what it gives after
/// one stream has ended goes to the next.
#[derive(Debug)]
pub(crate) struct Stdin {
    pieces: Receiver<Vec<u8>>,
    is_terminal: bool,
}

impl Stdin {
    pub(crate) fn open() -> Self {
        let (give, pieces) = bounded(1);
        thread::spawn(move || {
            let mut stdin = io::stdin().lock();
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                match stdin.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) if give.send(buffer[..length].to_vec()).is_err() => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break tracing::warn!("cannot read standard input: {error}"),
                }
            }
        });
        Self { pieces, is_terminal: io::stdin().is_terminal() }
    }
}

/// Carries standard input to the peer and the peer's bytes to standard output, until both have ended; the end of one
/// direction is passed on and the other goes on. At a terminal the peer's end is the end of both: nobody there knows
/// that an end of input is awaited.
///
/// Gives the number of bytes that came. On an error the stream is reset, so that the peer does not take what it has for
/// the whole.
pub(crate) fn pipe(stream: &Stream, stdin: &Stdin) -> Result<u64, Failure> {
    thread::scope(|scope| {
        let (over, is_over) = bounded::<()>(0);
        let upload = scope.spawn(move || upload(stream, stdin, &is_over));
        let came = download(stream);
        if came.is_err() {
            reset(stream);
        }
        if came.is_err() || stdin.is_terminal {
            drop(over);
            let sent = upload.join().expect("the upload does not panic");
            return came.and_then(|came| sent.map(|()| came));
        }
        let sent = upload.join().expect("the upload does not panic");
        drop(over);
        came.and_then(|came| sent.map(|()| came))
    })
}

fn upload(mut stream: &Stream, stdin: &Stdin, is_over: &Receiver<()>) -> Result<(), Failure> {
    loop {
        select! {
            recv(stdin.pieces) -> piece => match piece {
                Ok(piece) => stream.write_all(&piece).map_err(|error| cut_off(&error))?,
                Err(_) => break,
            },
            recv(is_over) -> _ => break,
        }
    }
    stream.shutdown(Shutdown::Write).map_err(|error| Failure::of("stream", &error))
}

fn download(mut stream: &Stream) -> Result<u64, Failure> {
    let mut stdout = io::stdout().lock();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut total = 0;
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cut_off(&error)),
        };
        total += length as u64;
        stdout.write_all(&buffer[..length]).and_then(|()| stdout.flush()).map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Failure::new("stdout", "whoever read standard output went away");
            }
            Failure::new("stdout", format!("cannot write to standard output: {}", crust::error_chain(&error)))
        })?;
    }
}

fn cut_off(error: &io::Error) -> Failure {
    Failure::new("stream", format!("the stream was cut off: {}", crust::error_chain(error)))
}

/// Ends both directions at once and wakes whoever waits on the stream.
pub(crate) fn reset(stream: &Stream) {
    if let Ok(handle) = stream.try_clone() {
        handle.reset(RESET_CODE);
    }
}

/// Large enough for few system calls, small enough that a slow peer holds back little.
const PIECE_BYTES: usize = 64 << 10;
/// The one reason that this command has to reset a stream: its end is not the end of the data.
const RESET_CODE: u32 = 1;
