use std::{
    io,
    net::{TcpListener, TcpStream, ToSocketAddrs as _},
    thread,
    time::Duration,
};

use crossbeam::{
    channel::{Receiver, Sender, bounded},
    select,
};
use crust::{AcceptError, ConnectOptions, Contact, ProtocolLabel, Stream};

use super::{Running, connect::dial, dialling, guarded};
use crate::{
    arguments::{Common, ForwardArguments},
    events::{Event, Output},
    failure::Failure,
    pipe::reset,
    setup::{self, Who},
    splice::splice,
};

/// Carries a TCP port through streams, one stream a connection.
pub(super) fn run(arguments: &ForwardArguments, common: &Common, output: Output) -> Result<(), Failure> {
    match arguments {
        ForwardArguments { to: Some(to), .. } => to_service(to, common, output),
        ForwardArguments { local: Some(local), peer: Some(peer), .. } => {
            from_port(local, peer, common, output)
        }
        _ => Err(Failure::usage("give --to HOST:PORT, or LOCAL and PEER")),
    }
}

/// Where the service is: each stream becomes a connection to it.
fn to_service(to: &str, common: &Common, output: Output) -> Result<(), Failure> {
    if !to.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(Failure::usage(format!("--to {to} is not of the form HOST:PORT")));
    }
    let config = guarded(setup::config(common, Who::Known, output)?, common);
    let mut running = Running::start(config.protocols([label()]))?;
    let contact = running.announce(output)?;
    output.print(&format!("crust forward 127.0.0.1:0 {contact}"));
    let result = each(&running, running.acceptor.receiver(), |stream: Stream| {
        output.event(&Event::connected(&stream, None));
        let peer = stream.public_key().to_string();
        let result = dial_service(to).inspect_err(|_| reset(&stream));
        closed(output, peer, result.and_then(|socket| splice(&socket, &stream)));
    });
    running.served(result)
}

/// Where the service is wanted: each connection becomes a stream.
fn from_port(local: &str, peer: &Contact, common: &Common, output: Output) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::new("listen", format!("cannot listen on {local}: {error}"));
    let listener = TcpListener::bind(local).map_err(cannot)?;
    let addr = listener.local_addr().map_err(cannot)?;
    let running = Running::start(dialling(setup::config(common, Who::Fresh, output)?))?;
    let id = running.controller.public_key().to_string();
    output.event(&Event::Listening { id, contact: None, endpoints: vec![addr.to_string()], lan_port: None });
    output.print(&format!("listening on {addr}"));
    let (give, sockets) = bounded(1);
    // An accept of the system's cannot be interrupted: this thread ends with the process.
    thread::spawn(move || accept_all(&listener, &give));
    let options = ConnectOptions::new().protocol(label());
    let result = each(&running, &sockets, |socket: TcpStream| {
        let _ = socket.set_nodelay(true);
        match dial(&running.controller, peer, &options, output) {
            Ok(stream) => closed(output, peer.public_key().to_string(), splice(&socket, &stream)),
            Err(failure) => {
                let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
                failure.close(output);
            }
        }
    });
    running.served(result)
}

/// Serves each on a thread of its own until the command is interrupted.
fn each<T: Send>(running: &Running, incoming: &Receiver<T>, serve: impl Fn(T) + Sync) -> Result<(), Failure> {
    let (take_place, places) = bounded(MAX_CONNECTIONS);
    for _ in 0..MAX_CONNECTIONS {
        take_place.send(()).expect("the channel was made for as many");
    }
    thread::scope(|scope| {
        loop {
            // Without a place the next connection waits where it is.
            select! {
                recv(places) -> _ => {}
                recv(running.interrupt.signal()) -> _ => break,
            }
            let one = select! {
                recv(incoming) -> one => one,
                recv(running.interrupt.signal()) -> _ => break,
            };
            let Ok(one) = one else { break };
            let (serve, give_back) = (&serve, take_place.clone());
            scope.spawn(move || {
                serve(one);
                let _ = give_back.send(());
            });
        }
        running.controller.close();
    });
    Err(AcceptError::Closed.into())
}

fn accept_all(listener: &TcpListener, give: &Sender<TcpStream>) {
    for socket in listener.incoming() {
        match socket {
            Ok(socket) => {
                if give.send(socket).is_err() {
                    return;
                }
            }
            // Out of descriptors, most likely: they come back when connections end.
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn dial_service(to: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{to} has no address"));
    for addr in to.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, SERVICE_DEADLINE) {
            Ok(socket) => {
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(io::Error::new(last.kind(), format!("cannot reach the service {to}: {last}")))
}

fn closed(output: Output, peer: String, result: io::Result<()>) {
    output.event(&Event::Closed {
        peer: Some(peer),
        reason: result.err().map(|error| crust::error_chain(&error)),
    });
}

fn label() -> ProtocolLabel {
    ProtocolLabel::new("crust-forward/1").expect("it is short enough")
}

/// Each costs two threads and two descriptors.
const MAX_CONNECTIONS: usize = 256;
/// The service is near; what does not answer in this time is down.
const SERVICE_DEADLINE: Duration = Duration::from_secs(5);
/// Long enough not to burn a core, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
