//! Two programs behind NATs meet directly: each prints one line, which you carry to the other by any channel.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nat_traversal::{
    HolePunchServer, MappedTcpSocket, MappedUdpSocket, MappingConfig, MappingContext, PubRendezvousInfo,
    PunchOptions, PunchedUdpSocket, gen_rendezvous_info, tcp_punch_hole,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match &words[..] {
        ["--server", first, second] => serve(&[first, second]),
        ["--server", only] => serve(&[only]),
        ["--tcp", servers @ ..] => context(servers).and_then(|context| over_tcp(&context)),
        servers => context(servers).and_then(|context| over_udp(&context)),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    println!("not punched: {}", causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")));
    ExitCode::FAILURE
}

/// Answers peers who ask how they look from outside, at one address or two, until it is killed.
fn serve(addresses: &[&str]) -> Outcome<()> {
    let _server = match addresses {
        [first, second] => HolePunchServer::bind_two(first.parse()?, second.parse()?)?,
        _ => HolePunchServer::bind(addresses[0].parse()?)?,
    };
    println!("serving at {}", addresses.join(" "));
    loop {
        std::thread::park();
    }
}

/// What the options `--stun HOST:PORT` ask for.
fn context(options: &[&str]) -> Outcome<MappingContext> {
    let mut config = MappingConfig::new();
    for option in options.chunks(2) {
        let ["--stun", server] = option else { return Err(USAGE.into()) };
        config = config.server(server.to_socket_addrs()?.next().ok_or("the server has no address")?);
    }
    Ok(MappingContext::new(config)?)
}

fn over_udp(context: &MappingContext) -> Outcome<()> {
    let mapped = MappedUdpSocket::new(context)?;
    let (ours, public) = gen_rendezvous_info(mapped.endpoints);
    let theirs = exchange(&public)?;
    let (begun, socket) = (Instant::now(), mapped.socket);
    // The user pasted the peer's line, by a way that is trusted: its addresses are the peer's.
    let how = PunchOptions::new().spray_unvouched(true);
    let punched = PunchedUdpSocket::punch_hole_with(socket, ours, &theirs, context, &how, begun + PATIENCE)?;
    tell(punched.socket.local_addr()?, punched.peer_addr, begun, &theirs);
    talk_over_udp(&punched.socket, punched.peer_addr)
}

fn over_tcp(context: &MappingContext) -> Outcome<()> {
    let mapped = MappedTcpSocket::new(context)?;
    let (ours, public) = gen_rendezvous_info(mapped.endpoints);
    let theirs = exchange(&public)?;
    let begun = Instant::now();
    let stream = tcp_punch_hole(mapped.socket, ours, &theirs, context, begun + PATIENCE)?;
    tell(stream.local_addr()?, stream.peer_addr()?, begun, &theirs);
    talk_over_tcp(stream)
}

/// Prints our line and reads the peer's.
fn exchange(ours: &PubRendezvousInfo) -> Outcome<PubRendezvousInfo> {
    println!("{ours}");
    Ok(io::stdin().lines().next().ok_or("no line of the peer came")??.parse()?)
}

fn tell(local: SocketAddr, remote: SocketAddr, begun: Instant, theirs: &PubRendezvousInfo) {
    let known = theirs.endpoints().iter().find(|known| known.addr == remote);
    let kind = known.map_or_else(|| "unnamed port".to_owned(), |known| known.kind.to_string());
    println!("punched {local} -> {remote} after {} ms ({kind})", begun.elapsed().as_millis());
}

/// Datagrams get lost, so all are sent again until the peer's have come, and a little longer for the peer's sake.
fn talk_over_udp(socket: &UdpSocket, peer: SocketAddr) -> Outcome<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut missing, mut rounds_after, mut buffer) = (messages(), 0, [0; 1_500]);
    for _ in 0..50 {
        messages().iter().try_for_each(|message| socket.send_to(message.as_bytes(), peer).map(drop))?;
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            // Late packets of the punch are none of them.
            let found = missing.iter().position(|message| message.as_bytes() == &buffer[..length]);
            found.map(|index| missing.remove(index)).inspect(|message| println!("received {message}"));
        }
        rounds_after += u32::from(missing.is_empty());
        if rounds_after == 3 {
            return Ok(());
        }
    }
    Err(format!("there is a hole, but {} of 10 messages did not come through it", missing.len()).into())
}

fn talk_over_tcp(stream: TcpStream) -> Outcome<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    messages().iter().try_for_each(|message| writeln!(&stream, "{message}"))?;
    let lines = BufReader::new(stream).lines().take(messages().len());
    let all: io::Result<Vec<()>> = lines.map(|line| line.map(|line| println!("received {line}"))).collect();
    if all?.len() < messages().len() { Err("the stream ended early".into()) } else { Ok(()) }
}

fn messages() -> Vec<String> {
    (1..=10).map(|number| format!("message {number} of 10")).collect()
}

const PATIENCE: Duration = Duration::from_secs(30);
const USAGE: &str = "usage: hole_punch [--tcp] --stun HOST:PORT… | hole_punch --server IP:PORT [IP:PORT]";
