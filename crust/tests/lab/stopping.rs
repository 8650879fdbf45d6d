//! A process that is stopped for a while and then goes on, as by a laptop's lid: its streams outlive it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::Shutdown,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crust::{Config, ConnectOptions, Contact, Lan, NamedEndpoint, Scheme, Service, Stream};

use crate::world::{World, soon};

/// The first argument of the peer that this program starts in a process of its own: what it is, for how long the other may be silent, and whom
/// it knows.
pub(crate) const AS_PEER: &str = "--as-stopped-peer";

/// Whose process is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    Dialler,
    Acceptor,
}

/// Two homes; one side's process is stopped for so long in the midst of a stream, to which the other goes on writing. Whatever was written
/// comes back, and in order. How long after the process goes on the first and the last byte came.
pub(crate) fn outlive(
    stopped: Stopped,
    scheme: Scheme,
    time: Duration,
    dead_after: Duration,
) -> [Duration; 2] {
    assert!(time < dead_after);
    let world = World::new("easy", "easy").dead_after(dead_after);
    let place = world.places.iter().find(|place| place.scheme() == Scheme::Quic).unwrap().to_string();
    let (mut peer, stream, _service) = match stopped {
        Stopped::Acceptor => {
            let mut peer = Peer::start(&world, "b1", &["acceptor", &seconds(dead_after), &place]);
            let contact: Contact = peer.line().parse().unwrap();
            let client = world.dialling("a1");
            let options = ConnectOptions::new().only([scheme]).deadline(PATIENCE);
            let dial = || client.controller.connect_with(contact, &options).unwrap();
            let stream = world.lab.node("a1").enter(dial);
            (peer, stream, client)
        }
        Stopped::Dialler => {
            let server = world.listening("b1");
            let contact = world.lab.node("b1").enter(|| server.controller.contact().unwrap()).to_string();
            let peer =
                Peer::start(&world, "a1", &["dialler", &seconds(dead_after), &contact, &scheme.to_string()]);
            let stream = server.acceptor.accept_deadline(soon()).unwrap();
            (peer, stream, server)
        }
    };
    let (mut writer, mut reader) = (&stream, &stream);
    // More than a round trip, so that nothing of the beginning is under way any more.
    writer.write_all(&block(0)).unwrap();
    reader.read_exact(&mut block(0)).unwrap();

    peer.signal("STOP");
    let begun = Instant::now();
    let written = thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut written = 0_u8;
            while begun.elapsed() < time {
                writer.write_all(&block(written)).unwrap();
                written += 1;
                // Some of it at the beginning and some in the end, and never so much that it has to wait for the other.
                thread::sleep(time / BLOCKS);
            }
            written
        });
        writing.join().unwrap()
    });
    peer.signal("CONT");
    let awake = Instant::now();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut first = None;
    for number in 0..written {
        let mut got = [0; BLOCK_BYTES];
        reader.read_exact(&mut got).expect("the stream goes on");
        assert_eq!(got, block(number));
        first.get_or_insert_with(|| awake.elapsed());
    }
    let last = awake.elapsed();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "it ends in order");
    peer.end();
    [first.expect("something was written"), last]
}

/// The child's part: sends back whatever comes on one stream.
pub(crate) fn serve(arguments: &[&str]) {
    let [what, dead_after, known, rest @ ..] = arguments else { panic!("{arguments:?}") };
    let dead_after = Duration::from_secs(dead_after.parse().unwrap());
    let config = Config::new().lan(Lan::Off).dead_after(dead_after);
    let start = |config: Config| Service::new_from_config(config).unwrap();
    let (stream, _service): (Stream, Service) = match *what {
        "acceptor" => {
            let introducer: NamedEndpoint = known.parse().unwrap();
            let service = start(config.introducers([introducer]));
            assert!(service.controller.wait_attached(soon()));
            println!("{}", service.controller.contact().unwrap());
            (service.acceptor.accept().unwrap(), service)
        }
        "dialler" => {
            let service = start(config.listen([]));
            let scheme: Scheme = if rest == ["tcp"] { Scheme::Tcp } else { Scheme::Quic };
            let options = ConnectOptions::new().only([scheme]).deadline(PATIENCE);
            let contact: Contact = known.parse().unwrap();
            (service.controller.connect_with(contact, &options).unwrap(), service)
        }
        other => panic!("{other}"),
    };
    let (mut reader, mut writer) = stream.split();
    std::io::copy(&mut reader, &mut writer).unwrap();
    drop(writer);
    // Its service lives until the other has everything.
    let _ = std::io::stdin().read(&mut [0]);
}

struct Peer {
    process: Child,
    input: Option<ChildStdin>,
}

impl Peer {
    fn start(world: &World, host: &str, arguments: &[&str]) -> Self {
        let mut command = world.lab.node(host).command(std::env::current_exe().unwrap());
        command.arg(AS_PEER).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take();
        Self { process, input }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn signal(&self, name: &str) {
        let process = self.process.id().to_string();
        let status = Command::new("kill").args(["-s", name, &process]).status().unwrap();
        assert!(status.success(), "kill -s {name} {process}");
    }

    fn end(&mut self) {
        drop(self.input.take());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn block(number: u8) -> [u8; BLOCK_BYTES] {
    std::array::from_fn(|place| number.wrapping_add(place as u8))
}

fn seconds(time: Duration) -> String {
    time.as_secs().to_string()
}

/// On a machine whose cores are all busy.
const PATIENCE: Duration = Duration::from_secs(30);
const BLOCKS: u32 = 20;
const BLOCK_BYTES: usize = 500;
