//! Drives [`Mesh`] over streams, in two threadings that do not show in it: two threads a peer, or one for all.

mod group;
mod helpers;
mod histogram;
mod load;
mod member;
mod one_thread;
mod processes;
mod report;
mod table;
mod two_threads;

use std::{fmt, time::Instant};

use crust::PublicKey;
use serde::{Deserialize, Serialize};
use transport::Stream;

pub use group::Group;
pub use histogram::Histogram;
pub(crate) use load::micros_since_epoch;
pub use member::{MemberSettings, member};
pub use one_thread::run_with as run_one_thread_with;
pub use processes::{Costs, Process, Processes};
pub use report::{Line, Loaded, PeerReport, Report};
pub use table::table;
pub use two_threads::run_with as run_two_threads_with;

use crate::protocol::mesh::{Event, Mesh};

/// What a program does with a mesh. All calls come from one thread, and none may wait.
pub trait Application {
    /// Takes what the mesh has to tell.
    fn handle_event(&mut self, now: Instant, event: Event, mesh: &mut Mesh);

    /// Does whatever is due.
    fn handle_timeout(&mut self, now: Instant, mesh: &mut Mesh);

    /// When [`Application::handle_timeout`] wants to be called.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Whether the program is done.
    fn is_over(&self) -> bool;
}

/// Where streams come from. Its calls may wait, and are made by threads of their own.
pub trait Network: Send + Sync {
    /// Waits for a stream that another opens; `None` after [`Network::close`].
    fn accept(&self) -> Option<Stream>;

    /// Opens a stream, within a bound in time.
    ///
    /// # Errors
    ///
    /// Why there is none, for a person to read.
    fn dial(&self, peer: PublicKey) -> Result<Stream, String>;

    /// Ends every wait, now and later.
    fn close(&self);
}

/// Bytes as the stack has counted them and as the driver has; they must agree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// What the driver has written.
    pub written: u64,
    /// What the driver has read.
    pub read: u64,
    /// What [`Stream::stats`] says was sent.
    pub stack_sent: u64,
    /// What [`Stream::stats`] says was received.
    pub stack_received: u64,
}

impl Traffic {
    /// Adds what a stream has carried, when it is put away.
    fn count(&mut self, stream: &Stream, read: u64, written: u64) {
        let stats = stream.stats();
        self.read += read;
        self.written += written;
        self.stack_sent += stats.sent_bytes;
        self.stack_received += stats.received_bytes;
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written, read, stack_sent, stack_received } = self;
        write!(
            formatter,
            "written={written} read={read} stack_sent={stack_sent} stack_received={stack_received}"
        )
    }
}

/// Lets the application see events and do what is due; tells until when nothing is.
fn advance(now: Instant, mesh: &mut Mesh, application: &mut impl Application) {
    if mesh.poll_timeout().is_some_and(|at| at <= now) {
        mesh.handle_timeout(now);
    }
    while let Some(event) = mesh.poll_event() {
        application.handle_event(now, event, mesh);
    }
    if application.poll_timeout().is_some_and(|at| at <= now) {
        application.handle_timeout(now, mesh);
    }
}

/// What the two ends of a stream alone know.
fn binding(stream: &Stream) -> [u8; 32] {
    let mut binding = [0; 32];
    let exported = stream.export_keying_material(&mut binding, b"EXPORTER-Channel-Binding", b"");
    exported.expect("32 bytes can be exported");
    binding
}

/// When one of them wants to be called.
fn deadline(mesh: &Mesh, application: &impl Application) -> Instant {
    let first = [mesh.poll_timeout(), application.poll_timeout()].into_iter().flatten().min();
    first.unwrap_or_else(|| Instant::now() + IDLE)
}

/// How long to sleep at most when nobody has a wish.
const IDLE: std::time::Duration = std::time::Duration::from_secs(1);
/// Bytes that are read at once.
const READ: usize = 64 << 10;
