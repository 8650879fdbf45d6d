//! Two threads a peer: one sits in `read`, one in `write`. A third has the state.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam::channel::{Receiver, Sender, bounded};
use transport::Stream;

use super::{
    Application, Network, READ, Traffic, advance, deadline,
    helpers::{Found, Helpers},
};
use crate::protocol::mesh::{Action, LinkId, Mesh};

/// Runs a mesh until the application is over. Blocks; all threads have ended when it returns.
///
/// # Errors
///
/// When the system gives no thread.
pub fn run(
    mesh: &mut Mesh,
    application: &mut impl Application,
    network: Arc<dyn Network>,
) -> io::Result<Traffic> {
    let (tell, inputs) = bounded(INPUTS_AHEAD);
    let found = tell.clone();
    let helpers = Helpers::start(network, move |one| found.send(Input::Found(one)).is_ok())?;
    let mut driver = Driver { tell, links: BTreeMap::new(), traffic: Traffic::default(), ending: Vec::new() };
    while !application.is_over() {
        let first = inputs.recv_deadline(deadline(mesh, application)).ok();
        // What has gathered meanwhile goes along, so that one write carries the answers to all of it.
        for input in first.into_iter().chain(inputs.try_iter().take(INPUTS_AHEAD)) {
            driver.handle(mesh, input)?;
        }
        advance(std::time::Instant::now(), mesh, application);
        driver.act(mesh, &helpers);
        driver.write(mesh);
    }
    // The threads may sit in `send`: nobody listens any more.
    drop(inputs);
    for id in driver.links.keys().copied().collect::<Vec<_>>() {
        driver.close(id);
    }
    drop(helpers);
    for thread in driver.ending {
        let _ = thread.join();
    }
    Ok(driver.traffic)
}

/// What the other threads have to tell.
enum Input {
    Found(Found),
    Read(LinkId, Vec<u8>),
    Ended(LinkId),
    /// A piece was written, and there may be another.
    Wrote(LinkId),
}

struct Driver {
    tell: Sender<Input>,
    links: BTreeMap<LinkId, LinkThreads>,
    traffic: Traffic,
    /// Threads of streams that were closed.
    ending: Vec<JoinHandle<()>>,
}

/// The threads of one stream.
struct LinkThreads {
    stream: Stream,
    pieces: Sender<Vec<u8>>,
    writing: bool,
    threads: [JoinHandle<()>; 2],
}

impl Driver {
    fn handle(&mut self, mesh: &mut Mesh, input: Input) -> io::Result<()> {
        let now = std::time::Instant::now();
        match input {
            Input::Found(Found::Stream(stream)) => {
                if let Some(id) = mesh.handle_stream(now, stream.public_key()) {
                    let link = LinkThreads::start(id, stream, &self.tell)?;
                    self.links.insert(id, link);
                }
            }
            Input::Found(Found::Nobody(peer)) => mesh.handle_dial_failed(now, peer),
            Input::Read(id, bytes) => {
                self.traffic.read += bytes.len() as u64;
                mesh.handle_input(now, id, &bytes);
            }
            Input::Ended(id) => mesh.handle_end(now, id),
            Input::Wrote(id) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.writing = false;
                }
            }
        }
        Ok(())
    }

    fn act(&mut self, mesh: &mut Mesh, helpers: &Helpers) {
        while let Some(action) = mesh.poll_action() {
            match action {
                Action::Dial(peer) => helpers.dial(peer),
                Action::Close(id) => self.close(id),
            }
        }
    }

    /// Hands each writer that has nothing to do its next piece.
    fn write(&mut self, mesh: &mut Mesh) {
        for (id, link) in self.links.iter_mut().filter(|(_, link)| !link.writing) {
            let output = mesh.output(*id);
            let piece = output[..output.len().min(PIECE)].to_vec();
            if !piece.is_empty() {
                let length = piece.len();
                self.traffic.written += length as u64;
                // It waits for nothing else, so there is room.
                link.writing = link.pieces.try_send(piece).is_ok();
                mesh.wrote(*id, length);
            }
        }
    }

    fn close(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        drop(link.pieces);
        // Both threads leave their calls.
        let _ = link.stream.shutdown(Shutdown::Both);
        self.traffic.count(&link.stream);
        // They may sit in `send` until this thread takes what they bring, so they are joined at the end.
        self.ending.extend(link.threads);
        self.ending.retain(|thread| !thread.is_finished());
    }
}

impl LinkThreads {
    fn start(id: LinkId, stream: Stream, tell: &Sender<Input>) -> io::Result<Self> {
        let (pieces, next) = bounded(1);
        let (reader, writer) = stream.try_clone()?.split();
        let (read_tell, write_tell) = (tell.clone(), tell.clone());
        let threads = [
            thread::Builder::new()
                .name("mesh-read".to_owned())
                .spawn(move || read(id, reader, &read_tell))?,
            thread::Builder::new()
                .name("mesh-write".to_owned())
                .spawn(move || write(id, writer, &next, &write_tell))?,
        ];
        Ok(Self { stream, pieces, writing: false, threads })
    }
}

fn read(id: LinkId, mut stream: transport::ReadStream, tell: &Sender<Input>) {
    let mut buffer = vec![0; READ];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if tell.send(Input::Read(id, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
    let _ = tell.send(Input::Ended(id));
}

fn write(id: LinkId, mut stream: transport::WriteStream, pieces: &Receiver<Vec<u8>>, tell: &Sender<Input>) {
    for piece in pieces {
        if stream.write_all(&piece).is_err() {
            // The reader tells of the end.
            return;
        }
        if tell.send(Input::Wrote(id)).is_err() {
            return;
        }
    }
}

/// Inputs that wait for the thread with the state; when there are more, whoever brings them waits.
const INPUTS_AHEAD: usize = 256;
/// Bytes that a writer has in hand, beside the queue.
const PIECE: usize = 64 << 10;
