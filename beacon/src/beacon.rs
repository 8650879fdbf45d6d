use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::config::BeaconConfig;
use crate::error::{BeaconError, NextError, SetDataError};
use crate::io::mailbox::{Data, Mailbox};
use crate::io::queue::{Outlet, Queue};
use crate::io::worker;
use crate::message::Message;
use crate::protocol::{News, TooLarge};
use crate::stats::Stats;
use crate::warning::Warning;

/// Hears the beacons of others, while a thread announces our own.
///
/// Announcing goes on until the last [`BeaconController`] is dropped; then every wait on the `Beacon` ends. Dropping
/// the `Beacon` alone only stops the listening.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use beacon::{Beacon, BeaconConfig, Interfaces};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = BeaconConfig::new(0).interfaces(Interfaces::Loopback);
/// let (alice, _alice_controller) = Beacon::with_config(config.clone(), "alice")?;
///
/// let config = BeaconConfig::new(alice.port()).interfaces(Interfaces::Loopback);
/// let (mut bob, _bob_controller) = Beacon::with_config(config, "bob")?;
///
/// let message = bob.next(Instant::now() + Duration::from_secs(10))?;
/// assert_eq!(message.payload(), b"alice");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Beacon {
    messages: Receiver<Message>,
    port: u16,
}

impl Beacon {
    /// Starts a beacon on `port` of every suitable interface that announces `data` every `period` and filters its own
    /// echo by `id_bytes` random bytes.
    ///
    /// Takes milliseconds and waits for nobody. All other settings are those of [`BeaconConfig::default`].
    ///
    /// Keep the controller: dropping the last one ends the beacon.
    ///
    /// # Errors
    ///
    /// Any [`BeaconError`]; then nothing is left running.
    pub fn new<D: AsRef<[u8]> + Send + 'static>(
        port: u16,
        id_bytes: usize,
        data: D,
        period: Duration,
    ) -> Result<(Self, BeaconController), BeaconError> {
        Self::with_config(BeaconConfig::new(port).id_bytes(id_bytes).period(period), data)
    }

    /// Starts a beacon that announces `data` as configured.
    ///
    /// Takes milliseconds and waits for nobody.
    ///
    /// # Errors
    ///
    /// Any [`BeaconError`]; then nothing is left running.
    pub fn with_config<D: AsRef<[u8]>>(
        config: BeaconConfig,
        data: D,
    ) -> Result<(Self, BeaconController), BeaconError> {
        Self::start(config, Some(data.as_ref()))
    }

    /// Starts a beacon that asks who is there and announces nothing, so that others do not report it. It begins to
    /// announce with [`BeaconController::set_data`].
    ///
    /// Takes milliseconds and waits for nobody.
    ///
    /// # Errors
    ///
    /// Any [`BeaconError`]; then nothing is left running.
    pub fn listen(config: BeaconConfig) -> Result<(Self, BeaconController), BeaconError> {
        Self::start(config, None)
    }

    /// Like [`Beacon::listen`], but calls `handle` with each message, on the beacon's own thread, instead of queueing
    /// it: for those who keep a table of peers and want no further thread to feed it.
    ///
    /// `handle` must not block, as nothing is sent or received meanwhile, and must not drop the last controller.
    ///
    /// # Errors
    ///
    /// Any [`BeaconError`]; then nothing is left running.
    pub fn listen_with(
        config: BeaconConfig,
        handle: impl FnMut(Message) + Send + 'static,
    ) -> Result<BeaconController, BeaconError> {
        BeaconController::start(config, None, Outlet::Handler(Box::new(handle)))
    }

    fn start(config: BeaconConfig, data: Option<&[u8]>) -> Result<(Self, BeaconController), BeaconError> {
        let (queue, messages) = Queue::new();
        let controller = BeaconController::start(config, data, Outlet::Queue(queue))?;
        Ok((Self { messages, port: controller.port() }, controller))
    }

    /// The port that is shared with the other beacons.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the next announcement of a peer and puts its data into `buffer`, in place of what was there.
    ///
    /// Waits without end; `None` says that the last controller was dropped. Peers that leave are passed over: use
    /// [`next`](Self::next) to hear of them.
    pub fn next_message(&mut self, buffer: &mut Vec<u8>) -> Option<()> {
        loop {
            let message = self.messages.recv().ok()?;
            if !matches!(message.news(), News::Left(_)) {
                buffer.clear();
                buffer.extend_from_slice(message.payload());
                return Some(());
            }
        }
    }

    /// Waits for the next message until `deadline`.
    ///
    /// # Errors
    ///
    /// [`NextError::TimedOut`] at the deadline, [`NextError::Closed`] once the last controller was dropped and all
    /// that was heard before has been read.
    pub fn next(&mut self, deadline: Instant) -> Result<Message, NextError> {
        self.messages.recv_deadline(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => NextError::TimedOut,
            RecvTimeoutError::Disconnected => NextError::Closed,
        })
    }

    /// Iterates over messages until `deadline`, or until the last controller is dropped; each step waits for the
    /// next message.
    pub const fn messages(&mut self, deadline: Instant) -> Messages<'_> {
        Messages { beacon: self, deadline }
    }

    /// The channel on which messages come, to wait for them together with other things by `crossbeam`'s `select!`.
    ///
    /// It holds at most 512 messages: when an application reads too slowly, the oldest are dropped and counted in
    /// [`Stats::messages_dropped`]. It is disconnected when the last controller is dropped.
    #[must_use]
    pub const fn receiver(&self) -> &Receiver<Message> {
        &self.messages
    }
}

/// An iterator over messages, made by [`Beacon::messages`].
#[derive(Debug)]
pub struct Messages<'a> {
    beacon: &'a mut Beacon,
    deadline: Instant,
}

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        self.beacon.next(self.deadline).ok()
    }
}

/// Changes what a running beacon announces; dropping the last clone ends the beacon.
///
/// The end is clean: a goodbye is sent, the thread joined and the sockets closed when the drop returns, within
/// milliseconds.
///
/// # Examples
///
/// ```
/// use beacon::{Beacon, BeaconConfig, Interfaces};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = BeaconConfig::new(0).interfaces(Interfaces::Loopback);
/// let (mut beacon, controller) = Beacon::with_config(config, "one")?;
///
/// controller.set_data("two")?;
/// drop(controller);
///
/// assert_eq!(beacon.next_message(&mut Vec::new()), None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BeaconController {
    running: Arc<Running>,
}

impl BeaconController {
    fn start(config: BeaconConfig, data: Option<&[u8]>, outlet: Outlet) -> Result<Self, BeaconError> {
        let started = worker::start(config, data, outlet)?;
        let running = Running {
            mailbox: started.mailbox,
            thread: Some(started.thread),
            port: started.port,
            max_data_bytes: started.max_data_bytes,
        };
        Ok(Self { running: Arc::new(running) })
    }

    /// Announces other data from now on: at once, and once more shortly after, in case the first is lost.
    ///
    /// Does not wait. When called faster than 50 times a second, only the latest data is announced.
    ///
    /// # Errors
    ///
    /// [`SetDataError::TooLarge`] if the data does not fit into one datagram.
    pub fn set_data<D: AsRef<[u8]>>(&self, data: D) -> Result<(), SetDataError> {
        let data = data.as_ref();
        let limit_bytes = self.max_data_bytes();
        if data.len() > limit_bytes {
            return Err(TooLarge { bytes: data.len(), limit_bytes }.into());
        }
        if self.running.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(SetDataError::Stopped);
        }
        self.running.mailbox.request(|requests| requests.data = Some(Data::Announced(data.to_vec())));
        Ok(())
    }

    /// Says goodbye and announces nothing until [`set_data`](Self::set_data); what others announce is still heard.
    ///
    /// Does not wait.
    pub fn hide(&self) {
        self.running.mailbox.request(|requests| requests.data = Some(Data::Hidden));
    }

    /// Asks anew who is there, as at the start: useful before looking for a peer that has not been heard.
    ///
    /// Does not wait.
    pub fn search(&self) {
        self.running.mailbox.request(|requests| requests.search = true);
    }

    /// Announces every `period` from now on, within the bounds of [`BeaconConfig::period`].
    ///
    /// Does not wait.
    pub fn set_period(&self, period: Duration) {
        self.running.mailbox.request(|requests| requests.period = Some(period));
    }

    /// The most data that [`set_data`](Self::set_data) takes, in bytes: about 1,200, or 1,050 with a secret.
    #[must_use]
    pub fn max_data_bytes(&self) -> usize {
        self.running.max_data_bytes
    }

    /// The port that is shared with the other beacons.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.running.port
    }

    /// What does not work at the moment while the rest goes on; usually nothing.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        self.running.mailbox.read().warnings
    }

    /// What was sent, heard and refused so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.running.mailbox.read().stats
    }
}

/// The thread, owned by all controllers together.
#[derive(Debug)]
struct Running {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
    port: u16,
    max_data_bytes: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.mailbox.request(|requests| requests.close = true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended it, which is all that is wanted here.
            let _ = thread.join();
        }
    }
}
