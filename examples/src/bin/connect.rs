//! Two programs meet. Without an argument it waits and prints how to reach it; with that text it dials and says hello.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
};

use crust::{Contact, Service};

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        None => answer(),
        Some(contact) => ask(&contact.parse()?),
    }
}

/// Waits for one peer, reads a line from it and answers.
fn answer() -> Result<(), Box<dyn Error>> {
    let service = Service::new()?;
    println!("{}", service.controller.contact()?);

    // Blocks until someone has connected, proved its key, and been admitted.
    let mut stream = service.acceptor.accept()?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    println!("{} says: {}", stream.public_key(), line.trim());
    writeln!(stream, "nice to meet you")?;
    Ok(()) // dropping the stream ends it in order; dropping the service closes everything
}

/// Dials a peer, sends a line and reads the answer.
fn ask(contact: &Contact) -> Result<(), Box<dyn Error>> {
    let service = Service::new()?;

    // Blocks until the peer has accepted, for ten seconds at most; afterwards the key in the contact is proved.
    let mut stream = service.controller.connect(contact)?;
    writeln!(stream, "hello")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    println!("{} says: {}", stream.public_key(), line.trim());
    Ok(())
}
