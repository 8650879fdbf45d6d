//! What the tests share.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use transport::{Endpoint, Identity, Listener, Scheme, Stream, Transport, TransportConfig};

/// The schemes, for what must hold for each.
pub(crate) const SCHEMES: [Scheme; 2] = [Scheme::Tcp, Scheme::Quic];

/// A transport with a key of its own.
pub(crate) fn transport() -> Transport {
    with_config(TransportConfig::default())
}

/// A transport with a key of its own and a configuration.
pub(crate) fn with_config(config: TransportConfig) -> Transport {
    Transport::new(Identity::generate(), config).unwrap()
}

/// A listener on loopback and where to dial it.
pub(crate) fn listen(transport: &Transport, scheme: Scheme) -> (Listener, Endpoint) {
    let listener = Listener::bind(transport, format!("{scheme}://127.0.0.1:0")).unwrap();
    let endpoint = listener.endpoints().unwrap().next().unwrap();
    (listener, endpoint)
}

/// Two ends of one stream: dialled, accepted.
pub(crate) fn pair(client: &Transport, server: &Transport, scheme: Scheme) -> (Stream, Stream) {
    let (listener, endpoint) = listen(server, scheme);
    let dialled = Stream::direct_connect(client, endpoint).unwrap();
    let accepted = listener.accept_deadline(soon()).unwrap();
    (dialled, accepted)
}

/// Far enough away that only a hang gets there.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Runs `wait` on a thread, lets it settle into its wait, runs `end`, and returns what `wait` gave and how long that took
/// from then on. A wait that never ends fails the test instead of hanging it.
pub(crate) fn interrupted<R: Send + 'static>(
    wait: impl FnOnce() -> R + Send + 'static,
    end: impl FnOnce(),
) -> (R, Duration) {
    let (give, given) = mpsc::channel();
    thread::spawn(move || give.send(wait()));
    // Nothing tells from outside that a thread sits in a system call; too short a pause only makes the test easier.
    thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    end();
    let result = given.recv_timeout(Duration::from_secs(20)).expect("the wait ends");
    (result, begun.elapsed())
}

/// The promise is 50 ms; the rest allows for a machine whose cores are all busy.
pub(crate) const PROMPTLY: Duration = Duration::from_millis(500);
