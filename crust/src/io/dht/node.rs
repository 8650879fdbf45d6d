//! A node of the DHT, by the crate `mainline`: a thread and a UDP socket of its own.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use crossbeam::{
    channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded},
    sync::{Parker, Unparker},
};
use futures_core::Stream as _;
use mainline::{
    Dht, MutableItem, RequestFilter, RequestSpecific, ServerSettings,
    async_dht::{AsyncDht, GetMutableDetailed, GetMutableOutcomeReceiver, GetStream},
};

use super::DhtError;
use crate::io::clock;

/// Runs until it is [stopped](Node::stop) or dropped.
#[derive(Debug)]
pub(super) struct Node {
    handle: AsyncDht,
    /// Nothing is ever sent: it is disconnected when the thread ends, after the socket was closed.
    ended: Receiver<Infallible>,
}

impl Node {
    /// Enters the DHT by these nodes.
    pub(super) fn start(bootstrap: &[SocketAddrV4], local: bool) -> io::Result<Self> {
        let (lives, ended) = bounded(0);
        let address = if local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let build = || {
            let mut builder = Dht::builder();
            builder
                .bootstrap(bootstrap)
                .bind_address(address)
                // Not the usual one, which others on this host may want, and by which networks tell users of BitTorrent.
                .port(0)
                .request_timeout(if local { PATIENCE_NEARBY } else { PATIENCE })
                .server_settings(ServerSettings { filter: Box::new(Silent { lives }), ..Default::default() });
            builder.build()
        };
        // It panics if its thread ends before it has asked how that went.
        let built = catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| {
            Err(io::Error::other("the node of the DHT ended as it began: is there a free UDP port?"))
        })?;
        Ok(Self { handle: built.as_async(), ended })
    }

    /// What asks it. It does not end as long as there is one of these.
    pub(super) fn handle(&self) -> AsyncDht {
        self.handle.clone()
    }

    /// Whether its thread is there; it is not after a panic of `mainline`.
    pub(super) fn is_running(&self) -> bool {
        !matches!(self.ended.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Ends it, and waits until its socket is closed, which takes it 50 ms, or until `deadline`. Tells whether it has ended.
    pub(super) fn stop(self, deadline: Instant) -> bool {
        drop(self.handle);
        matches!(self.ended.recv_deadline(deadline), Err(RecvTimeoutError::Disconnected))
    }
}

/// Answers nobody, also where the node finds that others can reach it: whoever looks for a peer serves no strangers.
#[derive(Debug, Clone)]
struct Silent {
    #[expect(dead_code, reason = "held for its drop, with the node")]
    lives: Sender<Infallible>,
}

impl RequestFilter for Silent {
    fn allow_request(&self, _: &RequestSpecific, _: SocketAddrV4) -> bool {
        false
    }
}

/// Blocks for an answer of the node.
pub(super) struct Waiting {
    parker: Parker,
    waker: Waker,
}

/// Wakes who waits.
pub(super) struct Unpark(Unparker);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Waiting {
    pub(super) fn new() -> Self {
        let parker = Parker::new();
        let waker = Waker::from(Arc::new(Unpark(parker.unparker().clone())));
        Self { parker, waker }
    }

    /// Wakes who waits, to look whether to go on.
    pub(super) fn unparker(&self) -> Unparker {
        self.parker.unparker().clone()
    }

    /// Blocks until `poll` has something, at most until `deadline`, or until `given_up`. What `mainline` panics at is an error.
    pub(super) fn wait<T>(
        &self,
        deadline: Instant,
        given_up: &dyn Fn() -> Result<(), DhtError>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, DhtError> {
        loop {
            given_up()?;
            let mut context = Context::from_waker(&self.waker);
            match guarded(|| poll(&mut context))? {
                Poll::Ready(ready) => return Ok(ready),
                Poll::Pending if clock::now() >= deadline => return Err(DhtError::TimedOut),
                Poll::Pending => self.parker.park_deadline(deadline),
            }
        }
    }

    pub(super) fn wait_for<T>(
        &self,
        deadline: Instant,
        given_up: &dyn Fn() -> Result<(), DhtError>,
        future: impl Future<Output = T>,
    ) -> Result<T, DhtError> {
        let mut future = std::pin::pin!(future);
        self.wait(deadline, given_up, |context| future.as_mut().poll(context))
    }
}

/// Does something with `mainline`, which panics when its thread is gone.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, DhtError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| DhtError::Failed)
}

/// A question that is under way, with or without somebody who waits for it.
pub(super) struct Question {
    items: GetStream<MutableItem>,
    outcome: Option<GetMutableOutcomeReceiver>,
    until: Instant,
    /// As long as it is there the node is, without which its answer would be a panic.
    _node: AsyncDht,
}

impl Question {
    pub(super) fn ask(node: AsyncDht, key: &[u8; 32]) -> Result<Self, DhtError> {
        let GetMutableDetailed { items, outcome } = guarded(|| node.get_mutable_detailed(key, None, None))?;
        let until = clock::now() + LONGEST_QUESTION;
        Ok(Self { items, outcome: Some(outcome), until, _node: node })
    }

    /// The next item that a node has; `None` once all that were asked have answered.
    pub(super) fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<MutableItem>> {
        Pin::new(&mut self.items).poll_next(context)
    }

    /// How many nodes have answered, after the last item.
    pub(super) fn answered(
        &mut self,
        waiting: &Waiting,
        deadline: Instant,
        given_up: &dyn Fn() -> Result<(), DhtError>,
    ) -> Result<u32, DhtError> {
        let Some(outcome) = self.outcome.take() else { return Ok(0) };
        Ok(waiting.wait_for(deadline, given_up, outcome.recv())?.responded())
    }

    /// Whether the node still asks others for it.
    pub(super) fn is_under_way(&mut self, now: Instant) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        now < self.until && !matches!(guarded(|| self.poll_all(&mut context)), Ok(true) | Err(_))
    }

    fn poll_all(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            match self.poll_item(context) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }
}

/// Half a turn around the world, and a busy home router. Nodes that are gone, of which there are many, hold a question up for that long.
const PATIENCE: Duration = Duration::from_millis(1_500);
const PATIENCE_NEARBY: Duration = Duration::from_millis(500);

/// Each node has its time, and a question goes to some rows of nodes one after the other.
const LONGEST_QUESTION: Duration = Duration::from_secs(60);
