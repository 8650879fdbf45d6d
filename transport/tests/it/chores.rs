//! What a program has done beside its streams.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use transport::{Chore, Driver, Listener, TransportConfig};

use crate::support::with_config;

#[test]
fn a_chore_is_done_while_a_caller_waits_for_something_else() {
    for driver in [Driver::Background, Driver::Caller] {
        let transport = with_config(TransportConfig::default().driver(driver));
        let listener = Listener::bind(&transport, "tcp://127.0.0.1:0").unwrap();
        let (tell, told) = mpsc::channel();
        let chore = Chore::new(&transport, Instant::now(), move |now| {
            tell.send(thread::current().id()).ok()?;
            Some(now + Duration::from_millis(1))
        });
        thread::scope(|scope| {
            let accepting = scope.spawn(|| listener.accept().map(drop));
            let by: Vec<_> = (0..20).map(|_| told.recv_timeout(SOON).unwrap()).collect();
            if driver == Driver::Caller {
                assert!(by.iter().all(|by| *by == accepting.thread().id()), "nobody else is there");
            }
            drop(chore);
            // What was done before is told; then the work is gone, and with it whoever tells.
            while told.recv_timeout(SOON).is_ok() {}
            assert_eq!(told.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
            transport.close();
            assert!(accepting.join().unwrap().is_err());
        });
    }
}

#[test]
fn dropping_a_chore_waits_until_its_work_is_done() {
    let transport = with_config(TransportConfig::default());
    let (tell, told) = mpsc::channel();
    let (finish, finished) = mpsc::channel::<()>();
    let teller = tell.clone();
    let chore = Chore::new(&transport, Instant::now(), move |_| {
        tell.send("begun").ok()?;
        finished.recv().ok()?;
        tell.send("done").ok()?;
        None
    });
    assert_eq!(told.recv_timeout(SOON), Ok("begun"));
    let dropping = thread::spawn(move || {
        drop(chore);
        teller.send("dropped")
    });
    finish.send(()).unwrap();
    dropping.join().unwrap().unwrap();
    assert_eq!(told.iter().collect::<Vec<_>>(), ["done", "dropped"]);
}

const SOON: Duration = Duration::from_secs(30);
