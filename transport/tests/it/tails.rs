//! The rest of a write over QUIC that does not fill a batch of datagrams may wait for the next write, and for nothing else.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};

use transport::{Driver, Scheme, Stream, StreamSet, Transport, TransportConfig};

use crate::support::{listen, pair, transport, with_config};

/// Fills one batch over loopback, and leaves some bytes that do not.
const ONE_WRITE: usize = 1 << 16;

/// Writes once, does `then`, and tells how long the far end waited for all of it.
fn arrives_after(driver: Driver, then: impl FnOnce(&Transport, &mut Option<Stream>)) -> Duration {
    let client = with_config(TransportConfig::default().driver(driver));
    let server = transport();
    let (mut stream, mut far) = pair(&client, &server, Scheme::Quic);
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // What comes before the answer grants the window in which a whole batch fits.
    stream.write_all(b"?").unwrap();
    far.read_exact(&mut [0]).unwrap();
    far.write_all(b"!").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let reader = thread::spawn(move || {
        let mut got = vec![0; ONE_WRITE];
        far.read_exact(&mut got).map(|()| (Instant::now(), far))
    });
    let begun = Instant::now();
    assert_eq!(stream.write(&vec![7; ONE_WRITE]).unwrap(), ONE_WRITE);
    let mut stream = Some(stream);
    then(&client, &mut stream);
    let (arrived, _far) = reader.join().unwrap().expect("all of the write arrives");
    arrived - begun
}

#[test]
fn it_goes_by_itself_where_a_thread_of_the_library_turns() {
    let waited = arrives_after(Driver::Background, |_, _| {});
    // A millisecond or two are meant; the rest allows for a machine whose cores are all busy.
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

#[test]
fn it_goes_with_the_application_s_next_turn() {
    arrives_after(Driver::Caller, |client, _| {
        let end = Instant::now() + Duration::from_millis(300);
        while client.turn(end).is_ok() {}
    });
}

#[test]
fn it_goes_with_a_flush_an_end_and_a_drop_though_nobody_turns() {
    arrives_after(Driver::Caller, |_, stream| stream.as_mut().unwrap().flush().unwrap());
    arrives_after(Driver::Caller, |_, stream| stream.as_ref().unwrap().shutdown(Shutdown::Write).unwrap());
    arrives_after(Driver::Caller, |_, stream| drop(stream.take()));
}

#[test]
fn it_goes_with_a_small_write() {
    arrives_after(Driver::Caller, |_, stream| stream.as_mut().unwrap().write_all(b"more").unwrap());
}

#[test]
fn it_goes_with_a_read_that_finds_nothing() {
    arrives_after(Driver::Caller, |_, stream| {
        let stream = stream.as_mut().unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.read(&mut [0; 1]).unwrap_err();
    });
}

#[test]
fn it_goes_while_the_writer_waits_elsewhere() {
    let wait = Duration::from_millis(300);
    arrives_after(Driver::Caller, |client, _| {
        let (listener, _) = listen(client, Scheme::Quic);
        listener.accept_deadline(Instant::now() + wait).unwrap_err();
    });
    arrives_after(Driver::Caller, |client, stream| {
        let mut set = StreamSet::new(client).unwrap();
        set.add(stream.take().unwrap()).unwrap();
        let (mut ready, end) = (Vec::new(), Instant::now() + wait);
        while set.wait(&mut ready, Some(end)).is_ok() {}
        drop(set);
    });
}
