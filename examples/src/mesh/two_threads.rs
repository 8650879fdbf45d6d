//! Two threads a peer: one sits in `read`, one in `write`. A third has the state.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use crossbeam::{
    channel::{Receiver, Sender, bounded, never},
    select,
};
use crust::PublicKey;
use transport::Stream;

use super::{
    Application, Network, READ, Traffic, advance, binding, deadline,
    helpers::{Found, Helpers},
};
use crate::protocol::mesh::{Action, LinkId, Mesh};

/// Runs a mesh until the application is over, and hands the application what comes through `others`, such as what a user types.
/// Blocks; all threads have ended when it returns. Gives what was carried for each peer.
///
/// # Errors
///
/// When the system gives no thread.
pub fn run_with<A: Application, T>(
    mesh: &mut Mesh,
    application: &mut A,
    network: Arc<dyn Network>,
    others: &Receiver<T>,
    mut handle_other: impl FnMut(&mut A, Instant, &mut Mesh, T),
) -> io::Result<BTreeMap<PublicKey, Traffic>> {
    let (tell, inputs) = bounded(INPUTS_AHEAD);
    let (found, mut others) = (tell.clone(), others.clone());
    let helpers = Helpers::start(network, move |one| found.send(Input::Found(one)).is_ok())?;
    let mut driver = Driver { tell, links: BTreeMap::new(), traffic: BTreeMap::new(), ending: Vec::new() };
    while !application.is_over() {
        select! {
            recv(inputs) -> input => input.map_or(Ok(()), |input| driver.handle(mesh, input))?,
            recv(others) -> other => match other {
                Ok(other) => handle_other(application, Instant::now(), mesh, other),
                Err(_) => others = never(), // else it would be ready for ever
            },
            default(deadline(mesh, application).saturating_duration_since(Instant::now())) => {}
        }
        // What has gathered meanwhile goes along, so that one write carries the answers to all of it.
        for input in inputs.try_iter().take(INPUTS_AHEAD) {
            driver.handle(mesh, input)?;
        }
        advance(Instant::now(), mesh, application);
        driver.act(mesh, &helpers);
        driver.write(mesh);
    }
    // The threads may sit in `send`: nobody listens any more.
    drop(inputs);
    for id in driver.links.keys().copied().collect::<Vec<_>>() {
        driver.close(id);
    }
    drop(helpers);
    driver.reap(|_| true);
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
    traffic: BTreeMap<PublicKey, Traffic>,
    /// Streams that were closed, and whose threads are about to end.
    ending: Vec<LinkThreads>,
}

/// The threads of one stream.
struct LinkThreads {
    stream: Stream,
    pieces: Sender<Vec<u8>>,
    writing: bool,
    /// Bytes that the reader has read and the writer has written.
    counts: Arc<[AtomicU64; 2]>,
    threads: [JoinHandle<()>; 2],
}

impl Driver {
    fn handle(&mut self, mesh: &mut Mesh, input: Input) -> io::Result<()> {
        let now = Instant::now();
        match input {
            Input::Found(Found::Stream(stream)) => {
                if let Some(id) = mesh.handle_stream(now, stream.public_key()) {
                    mesh.bind(id, binding(&stream));
                    let link = LinkThreads::start(id, stream, &self.tell)?;
                    self.links.insert(id, link);
                }
            }
            Input::Found(Found::Nobody(peer, why)) => mesh.handle_dial_failed(now, peer, why),
            Input::Read(id, bytes) => {
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
                // It waits for nothing else, so there is room.
                link.writing = link.pieces.try_send(piece).is_ok();
                mesh.wrote(*id, length);
            }
        }
    }

    fn close(&mut self, id: LinkId) {
        let Some(mut link) = self.links.remove(&id) else { return };
        link.pieces = bounded(0).0;
        // Both threads leave their calls. They may still sit in `send` until this thread takes what they bring.
        let _ = link.stream.shutdown(Shutdown::Both);
        self.ending.push(link);
        self.reap(|link| link.threads.iter().all(JoinHandle::is_finished));
    }

    /// Puts away closed streams, waiting for their threads.
    fn reap(&mut self, which: impl Fn(&LinkThreads) -> bool) {
        for link in self.ending.extract_if(.., |link| which(link)) {
            for thread in link.threads {
                let _ = thread.join();
            }
            let [read, written] = link.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
            let traffic = self.traffic.entry(link.stream.public_key()).or_default();
            traffic.count(&link.stream, read, written);
        }
    }
}

impl LinkThreads {
    fn start(id: LinkId, stream: Stream, tell: &Sender<Input>) -> io::Result<Self> {
        let (pieces, next) = bounded(1);
        let (reader, writer) = stream.try_clone()?.split();
        let (read_tell, write_tell) = (tell.clone(), tell.clone());
        let counts = Arc::<[AtomicU64; 2]>::default();
        let (read_counts, write_counts) = (Arc::clone(&counts), Arc::clone(&counts));
        let threads = [
            thread::Builder::new()
                .name("mesh-read".to_owned())
                .spawn(move || read(id, reader, &read_counts[0], &read_tell))?,
            thread::Builder::new()
                .name("mesh-write".to_owned())
                .spawn(move || write(id, writer, &next, &write_counts[1], &write_tell))?,
        ];
        Ok(Self { stream, pieces, writing: false, counts, threads })
    }
}

fn read(id: LinkId, mut stream: transport::ReadStream, count: &AtomicU64, tell: &Sender<Input>) {
    let mut buffer = vec![0; READ];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        count.fetch_add(length as u64, Ordering::Relaxed);
        if tell.send(Input::Read(id, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
    let _ = tell.send(Input::Ended(id));
}

fn write(
    id: LinkId,
    mut stream: transport::WriteStream,
    pieces: &Receiver<Vec<u8>>,
    count: &AtomicU64,
    tell: &Sender<Input>,
) {
    for piece in pieces {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            // The reader tells of the end.
            let Ok(length @ 1..) = stream.write(rest) else { return };
            count.fetch_add(length as u64, Ordering::Relaxed);
            rest = &rest[length..];
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
