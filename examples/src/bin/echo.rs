//! An echo server and its client in one process, over each scheme: a thread a stream, borrowed from a scope.

use std::{
    error::Error,
    io::{self, Read, Write},
    net::Shutdown,
    thread,
    time::Instant,
};

use crust::{Config, Contact, Scheme, Scoped, Stream};

fn main() -> Result<(), Box<dyn Error>> {
    for scheme in SCHEMES {
        let place = format!("{scheme}://127.0.0.1:0").parse()?;
        // When the scope ends, every stream, socket and thread of the server is gone.
        crust::scope(Config::new().listen([place]), |server| {
            thread::scope(|threads| {
                let contact = server.contact()?;
                threads.spawn(|| {
                    for stream in server.incoming() {
                        threads.spawn(move || echo(&stream));
                    }
                });
                let result = ask(scheme, &contact);
                server.controller().close(); // ends `incoming`
                result
            })
        })??;
    }
    Ok(())
}

/// Sends back what comes, until the peer ends its side.
fn echo(mut stream: &Scoped<'_, Stream>) -> io::Result<()> {
    io::copy(&mut stream.try_clone()?, &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// Sends a message, ends its own side, and reads the answer to its end.
fn ask(scheme: Scheme, contact: &Contact) -> Result<(), Box<dyn Error>> {
    let client = crust::Service::new_from_config(Config::new().listen([]))?;
    let started = Instant::now();
    let mut stream = client.controller.connect(contact)?;
    stream.write_all(b"there and back")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{scheme}: {answer:?} in {:.1?}, {}", started.elapsed(), stream.path().kind);
    Ok(())
}

const SCHEMES: [Scheme; 2] = [Scheme::Tcp, Scheme::Quic];
