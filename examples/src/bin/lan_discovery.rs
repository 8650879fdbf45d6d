//! Programs on one local network find each other, without any server or address: run it on two machines.
//!
//! `lan_discovery NAME` announces the name and prints who comes and goes. With a second argument it stays on this machine:
//! `lan_discovery NAME 0` lets the system choose a port and prints it, `lan_discovery NAME PORT` joins there.

use std::error::Error;

use beacon::{Beacon, BeaconConfig, Interfaces, News};
use crossbeam::{channel, select};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("give a name to announce")?;
    let config = match arguments.next() {
        None => BeaconConfig::new(PORT),
        Some(port) => BeaconConfig::new(port.parse()?).interfaces(Interfaces::Loopback),
    };

    // Starts a thread that announces the name, every second and whenever someone asks.
    let (beacon, controller) = Beacon::with_config(config, &name)?;
    println!("{name} is announced on port {}", beacon.port());

    // Messages come on a channel, so they can be awaited together with the program's own work: here, lines to read.
    let lines = lines();
    loop {
        select! {
            recv(beacon.receiver()) -> message => {
                let message = message?;
                let (peer, source) = (String::from_utf8_lossy(message.payload()), message.source().ip());
                match message.news() {
                    News::Appeared => println!("{peer:?} is at {source}, seen on {}", message.interface()),
                    News::Changed => println!("now {peer:?} is at {source}"),
                    News::Left(how) => println!("{peer:?} has left: {how:?}"),
                    News::Repeated => {}
                }
            }
            recv(lines) -> line => match line {
                // Announced at once.
                Ok(line) => controller.set_data(format!("{name}, {line}"))?,
                // The end of the input. Dropping the controller says goodbye and ends the thread.
                Err(_) => return Ok(()),
            },
        }
    }
}

/// The lines of standard input, until it ends.
fn lines() -> channel::Receiver<String> {
    let (sender, receiver) = channel::bounded(1);
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

/// The same for all who want to find each other.
const PORT: u16 = 28_400;
