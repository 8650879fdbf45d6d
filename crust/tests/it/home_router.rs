//! A home router on loopback.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nat_traversal::{
    protocol::{Datagram, Machine as _, SocketIndex},
    testing::Router,
};

/// A router that speaks PCP and NAT-PMP.
pub(crate) struct HomeRouter {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    router: Mutex<(Router, usize)>,
    changed: Condvar,
    /// Requests that have arrived, answered or not.
    heard: (Mutex<usize>, Condvar),
    ends: AtomicBool,
}

impl HomeRouter {
    pub(crate) fn start(address: &str, change: impl FnOnce(&mut Router)) -> Self {
        let socket = UdpSocket::bind((address, 5351)).unwrap();
        let mut router = Router::new(Instant::now(), EXTERNAL.into());
        change(&mut router);
        let router = Mutex::new((router, 0));
        let (changed, heard) = (Condvar::new(), (Mutex::new(0), Condvar::new()));
        let shared = Arc::new(Shared { router, changed, heard, ends: AtomicBool::new(false) });
        let address = socket.local_addr().unwrap();
        let serving = shared.clone();
        let thread = Some(thread::spawn(move || serving.serve(&socket)));
        Self { address, shared, thread }
    }

    pub(crate) fn ip(&self) -> std::net::IpAddr {
        self.address.ip()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Router)) {
        change(&mut self.shared.router.lock().unwrap().0);
    }

    /// It answers nobody for as long as this is held.
    pub(crate) fn hold(&self) -> MutexGuard<'_, (Router, usize)> {
        self.shared.router.lock().unwrap()
    }

    pub(crate) fn requests(&self) -> usize {
        self.shared.router.lock().unwrap().1
    }

    /// Waits until the number of ports that it forwards is as wanted.
    pub(crate) fn wait_until(&self, done: impl Fn(usize) -> bool) {
        self.wait_for(|router, _| done(router.forwardings(Instant::now()).len()));
    }

    pub(crate) fn wait_for(&self, done: impl Fn(&Router, usize) -> bool) {
        let state = self.shared.router.lock().unwrap();
        let waited =
            self.shared.changed.wait_timeout_while(state, PATIENCE, |state| !done(&state.0, state.1));
        let (state, waited) = waited.unwrap();
        assert!(!waited.timed_out(), "{:?}", state.0.forwardings(Instant::now()));
    }

    pub(crate) fn wait_until_asked(&self) {
        let (heard, changed) = &self.shared.heard;
        let waited = changed.wait_timeout_while(heard.lock().unwrap(), PATIENCE, |heard| *heard == 0);
        assert!(!waited.unwrap().1.timed_out());
    }
}

impl Drop for HomeRouter {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        let waker = UdpSocket::bind((self.address.ip(), 0)).unwrap();
        waker.send_to(b"", self.address).unwrap();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while let Ok((length, source)) = socket.recv_from(&mut buffer) {
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            *self.heard.0.lock().unwrap() += 1;
            self.heard.1.notify_all();
            let mut state = self.router.lock().unwrap();
            state.1 += 1;
            let datagram = Datagram { socket: SocketIndex::MAIN, source, bytes: &buffer[..length] };
            state.0.handle_datagram(Instant::now(), datagram);
            while let Some(answer) = state.0.poll_transmit() {
                // Whoever asked may be gone.
                let _ = socket.send_to(&answer.bytes, answer.destination);
            }
            drop(state);
            self.changed.notify_all();
        }
    }
}

/// Where it is by the word of the internet.
pub(crate) const EXTERNAL: [u8; 4] = [198, 51, 100, 77];
/// Far beyond what this takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);
