//! Workloads for systems whose streams block: a thread for each stream, at both ends.

use std::any::Any;
use std::io::{Read, Write};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::{CHUNK_BYTES, Load, MESSAGE_BYTES, Times, WARM_UP};
use crate::plan::{Plan, Workload};

/// A system with blocking streams. The value itself is what dials.
pub(crate) trait Blocking: Sized + Send + Sync + 'static {
    type Stream: Read + Write + Send + 'static;
    type Listener: Send + 'static;

    /// A listener on loopback, and what a dialer must know of it.
    fn listen() -> Result<(Self::Listener, String)>;
    fn accept(listener: &Self::Listener) -> Result<Self::Stream>;
    fn dialer(address: &str) -> Result<Self>;
    fn dial(&self) -> Result<Self::Stream>;

    /// A dial as between strangers, where a system remembers earlier ones.
    fn dial_first(&self) -> Result<Self::Stream> {
        self.dial()
    }

    /// Another stream on the connection that a `dial` has made, where a system has such connections.
    fn dial_shared(&self) -> Result<Self::Stream> {
        bail!("streams of this system share nothing")
    }
}

pub(crate) fn serve<S: Blocking>(workload: Workload) -> Result<(String, Box<dyn Any>)> {
    let (listener, address) = S::listen()?;
    thread::spawn(move || {
        while let Ok(stream) = S::accept(&listener) {
            // A stream ends when its dialer goes away; there is nothing to report then.
            thread::spawn(move || match workload {
                Workload::Bulk => swallow(stream),
                _ => echo(stream),
            });
        }
    });
    Ok((address, Box::new(())))
}

fn echo(mut stream: impl Read + Write) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}

/// Takes in transfers, each a length and as many bytes, and confirms each by one byte.
fn swallow(mut stream: impl Read + Write) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let mut length = [0; 8];
        stream.read_exact(&mut length)?;
        let mut left = u64::from_be_bytes(length);
        while left > 0 {
            let most = CHUNK_BYTES.min(left as usize);
            let taken = stream.read(&mut buffer[..most])?;
            ensure!(taken > 0, "the transfer ended early");
            left -= taken as u64;
        }
        stream.write_all(&[1])?;
    }
}

pub(crate) fn load<S: Blocking>(workload: Workload, plan: Plan, address: &str) -> Result<Load> {
    let dialer = Arc::new(S::dialer(address)?);
    let mut load = prepare(&dialer, workload, plan)?;
    Ok(Box::new(move || {
        // Streams end with what dialled them, so it stays.
        let _dialer = &dialer;
        load()
    }))
}

fn prepare<S: Blocking>(dialer: &Arc<S>, workload: Workload, plan: Plan) -> Result<Load> {
    match workload {
        Workload::Echo => echo_load(|| dialer.dial(), plan),
        Workload::Shared => echo_load(|| dialer.dial_shared(), plan),
        Workload::Count => {
            let mut stream = dialer.dial()?;
            Ok(Box::new(move || counted_echoes(&mut stream, plan.dials)))
        }
        Workload::Bulk => bulk_load(dialer.dial()?, plan),
        Workload::Connect => dial_load(dialer, S::dial_first, plan),
        Workload::Again => dial_load(dialer, S::dial, plan),
        Workload::Idle => Ok(idle_load(Arc::clone(dialer), plan)),
    }
}

fn echo_load<T: Read + Write + Send + 'static>(dial: impl Fn() -> Result<T>, plan: Plan) -> Result<Load> {
    let mut streams: Vec<T> = (0..plan.streams).map(|_| dial()).collect::<Result<_>>()?;
    if let [stream] = streams.as_mut_slice() {
        echoes(stream, Instant::now() + WARM_UP)?;
        let mut stream = streams.remove(0);
        return Ok(Box::new(move || echoes(&mut stream, Instant::now() + plan.time)));
    }
    for stream in &mut streams {
        echoes(stream, Instant::now() + WARM_UP / 64)?;
    }
    Ok(Box::new(move || {
        let start = Arc::new(Barrier::new(streams.len()));
        let parts: Vec<_> = streams
            .drain(..)
            .map(|mut stream| {
                let start = Arc::clone(&start);
                thread::spawn(move || {
                    start.wait();
                    echoes(&mut stream, Instant::now() + plan.time)
                })
            })
            .collect();
        let parts: Result<Vec<_>> =
            parts.into_iter().map(|part| part.join().ok().context("an echoing thread panicked")?).collect();
        Ok(Times::join(parts?))
    }))
}

/// Sends a message and waits for it, again and again until `end`.
fn echoes(stream: &mut (impl Read + Write), end: Instant) -> Result<Times> {
    let message = [7; MESSAGE_BYTES];
    let mut times = Times::begin();
    let mut now = times.begin;
    while now < end {
        echo_once(stream, &message)?;
        now = times.done(now);
    }
    Ok(times.end())
}

fn counted_echoes(stream: &mut (impl Read + Write), count: usize) -> Result<Times> {
    let mut times = Times::begin();
    for _ in 0..count {
        echo_once(stream, &[7; MESSAGE_BYTES])?;
        times.done(times.begin);
    }
    Ok(times.end())
}

fn echo_once(stream: &mut (impl Read + Write), message: &[u8; MESSAGE_BYTES]) -> Result<()> {
    let mut answer = [0; MESSAGE_BYTES];
    stream.write_all(message)?;
    stream.read_exact(&mut answer)?;
    ensure!(answer == *message, "the echo differs");
    Ok(())
}

fn bulk_load(mut stream: impl Read + Write + 'static, plan: Plan) -> Result<Load> {
    transfer(&mut stream, plan.warm_up_bytes())?;
    Ok(Box::new(move || transfer(&mut stream, plan.bulk_bytes())))
}

fn transfer(stream: &mut (impl Read + Write), length: u64) -> Result<Times> {
    let chunk = vec![7; CHUNK_BYTES];
    let mut times = Times::begin();
    stream.write_all(&length.to_be_bytes())?;
    for _ in 0..length / CHUNK_BYTES as u64 {
        stream.write_all(&chunk)?;
    }
    stream.flush()?;
    stream.read_exact(&mut [0])?;
    times.done(times.begin);
    Ok(times.end())
}

fn dial_load<S: Blocking>(dialer: &Arc<S>, dial: fn(&S) -> Result<S::Stream>, plan: Plan) -> Result<Load> {
    let dialer = Arc::clone(dialer);
    dials::<S>(&dialer, dial, plan.dials / 10)?;
    Ok(Box::new(move || dials::<S>(&dialer, dial, plan.dials)))
}

fn dials<S: Blocking>(dialer: &S, dial: fn(&S) -> Result<S::Stream>, count: usize) -> Result<Times> {
    let mut times = Times::begin();
    for _ in 0..count {
        let begin = Instant::now();
        let mut stream = dial(dialer)?;
        echo_once(&mut stream, &[7; MESSAGE_BYTES])?;
        times.done(begin);
    }
    Ok(times.end())
}

fn idle_load<S: Blocking>(dialer: Arc<S>, plan: Plan) -> Load {
    let mut streams = Vec::with_capacity(plan.streams);
    Box::new(move || {
        let mut times = Times::begin();
        for _ in 0..plan.streams {
            let begin = Instant::now();
            let mut stream = dialer.dial()?;
            echo_once(&mut stream, &[7; MESSAGE_BYTES])?;
            streams.push(stream);
            times.done(begin);
        }
        Ok(times.end())
    })
}
