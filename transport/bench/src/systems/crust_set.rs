//! `transport` with a `StreamSet`: one thread of each end serves all streams.

use std::any::Any;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use transport::{Listener, Readiness, Stream, StreamKey, StreamSet};

use super::blocking::Blocking;
use super::crust::{Crust, Over};
use super::{Load, MESSAGE_BYTES, Times, WARM_UP};
use crate::plan::{Plan, Workload};

/// An echo server: one thread accepts, another serves.
pub(crate) fn serve<S: Over>() -> Result<(String, Box<dyn Any>)> {
    let ((listener, transport), address) = Crust::<S>::listen(Workload::Echo)?;
    let mut set = StreamSet::new(&transport)?;
    let waker = set.waker();
    let (sender, accepted) = channel();
    thread::spawn(move || {
        accept_all(&listener, |stream| sender.send(stream).is_ok().then(|| waker.wake()).is_some())
    });
    thread::spawn(move || {
        let mut ready = Vec::new();
        while set.wait(&mut ready, None).is_ok() {
            take_in(&mut set, &accepted);
            for one in &ready {
                if set.get(one.key).is_some_and(|stream| echo(stream).is_err()) {
                    set.remove(one.key);
                }
            }
        }
    });
    Ok((address, Box::new(transport)))
}

fn accept_all(listener: &Listener, hand_over: impl Fn(Stream) -> bool) {
    while let Ok(stream) = listener.accept() {
        if !hand_over(stream) {
            return;
        }
    }
}

fn take_in(set: &mut StreamSet, accepted: &Receiver<Stream>) {
    for stream in accepted.try_iter() {
        if let Err(error) = set.add(stream) {
            eprintln!("a stream is lost: {error}");
        }
    }
}

/// Echoes what is there; an error when the stream is over. An answer fits the socket, as its dialer waits for it.
fn echo(mut stream: &Stream) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => bail!("the stream ended"),
            Ok(length) => stream.write_all(&buffer[..length])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) fn load<S: Over>(workload: Workload, plan: Plan, address: &str) -> Result<Load> {
    let dialer = Crust::<S>::dialer(address, workload)?;
    match workload {
        Workload::Echo | Workload::Shared => {
            let dial = if workload == Workload::Shared { Crust::dial_shared } else { Crust::dial };
            let mut client = Client::dial(&dialer, dial, plan.streams)?;
            client.echoes(Instant::now() + WARM_UP)?;
            Ok(Box::new(move || {
                // Streams end with what dialled them, so it stays.
                let _dialer = &dialer;
                client.echoes(Instant::now() + plan.time)
            }))
        }
        Workload::Idle => {
            let mut clients = Vec::new();
            Ok(Box::new(move || {
                let mut client = Client::dial(&dialer, Crust::dial, plan.streams)?;
                let times = client.echoes(Instant::now())?;
                clients.push(client);
                Ok(times)
            }))
        }
        _ => bail!("sets are only measured with echoes for a time and idle streams"),
    }
}

/// Many streams on one thread.
struct Client {
    set: StreamSet,
    ready: Vec<Readiness>,
    /// When the message under way on each stream was sent.
    begins: HashMap<StreamKey, Instant>,
}

impl Client {
    fn dial<S: Over>(dialer: &Crust<S>, dial: fn(&Crust<S>) -> Result<Stream>, count: usize) -> Result<Self> {
        let mut set = StreamSet::new(dialer.transport())?;
        let mut begins = HashMap::with_capacity(count);
        for _ in 0..count {
            begins.insert(set.add(dial(dialer)?)?, Instant::now());
        }
        Ok(Self { set, ready: Vec::new(), begins })
    }

    /// Keeps one message under way on every stream until `end`, then takes in the last ones.
    fn echoes(&mut self, end: Instant) -> Result<Times> {
        let mut times = Times::begin();
        for (key, begin) in &mut self.begins {
            *begin = times.begin;
            stream(&self.set, *key)?.write_all(&MESSAGE)?;
        }
        let mut under_way = self.begins.len();
        while under_way > 0 {
            self.set.wait(&mut self.ready, None)?;
            for one in &self.ready {
                let mut stream = stream(&self.set, one.key)?;
                if !answered(stream)? {
                    continue;
                }
                let begin = self.begins.get_mut(&one.key).context("it was added")?;
                let now = times.done(*begin);
                if now < end {
                    *begin = now;
                    stream.write_all(&MESSAGE)?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok(times.end())
    }
}

const MESSAGE: [u8; MESSAGE_BYTES] = [7; MESSAGE_BYTES];

fn stream(set: &StreamSet, key: StreamKey) -> Result<&Stream> {
    set.get(key).context("streams stay in the set")
}

/// Reads the answer, if it is there, and to the end of what is there.
fn answered(mut stream: &Stream) -> Result<bool> {
    let mut answer = [0; MESSAGE_BYTES + 1];
    let mut length = 0;
    loop {
        match stream.read(&mut answer[length..]) {
            Ok(0) => bail!("the stream ended"),
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(length == 0 || answer[..length] == MESSAGE, "the echo differs");
    Ok(length > 0)
}
