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
    fn listen(workload: Workload) -> Result<(Self::Listener, String)>;
    fn accept(listener: &Self::Listener) -> Result<Self::Stream>;
    fn dialer(address: &str, workload: Workload) -> Result<Self>;
    fn dial(&self) -> Result<Self::Stream>;

    /// Both directions, for two threads.
    fn split(_: Self::Stream) -> Result<(Box<dyn Read + Send>, Box<dyn Write + Send>)> {
        bail!("streams of this system have one user at a time")
    }

    /// Another stream on the connection that a `dial` has made, where a system has such connections.
    fn dial_shared(&self) -> Result<Self::Stream> {
        bail!("streams of this system share nothing")
    }
}

pub(crate) fn serve<S: Blocking>(workload: Workload) -> Result<(String, Box<dyn Any>)> {
    let (listener, address) = S::listen(workload)?;
    thread::spawn(move || {
        while let Ok(stream) = S::accept(&listener) {
            // A stream ends when its dialer goes away; there is nothing to report then.
            thread::spawn(move || match workload {
                Workload::Bulk => swallow(stream),
                Workload::Duplex => swallow_and_send::<S>(stream),
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
    loop {
        let mut length = [0; 8];
        stream.read_exact(&mut length)?;
        take(&mut stream, u64::from_be_bytes(length))?;
        stream.write_all(&[1])?;
    }
}

/// The same, sending as many bytes at the same time.
fn swallow_and_send<S: Blocking>(stream: S::Stream) -> Result<()> {
    let (mut reader, mut writer) = S::split(stream)?;
    loop {
        let mut length = [0; 8];
        reader.read_exact(&mut length)?;
        let length = u64::from_be_bytes(length);
        both(|| take(&mut reader, length), || give(&mut writer, length))?;
        writer.write_all(&[1])?;
    }
}

fn take(stream: &mut impl Read, length: u64) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut left = length;
    while left > 0 {
        let most = CHUNK_BYTES.min(left as usize);
        let taken = stream.read(&mut buffer[..most])?;
        ensure!(taken > 0, "the transfer ended early");
        left -= taken as u64;
    }
    Ok(())
}

fn give(stream: &mut impl Write, length: u64) -> Result<()> {
    let chunk = vec![7; CHUNK_BYTES];
    for _ in 0..length / CHUNK_BYTES as u64 {
        stream.write_all(&chunk)?;
    }
    Ok(stream.flush()?)
}

/// Does one here and the other on a thread of its own.
fn both(here: impl FnOnce() -> Result<()>, there: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    thread::scope(|scope| {
        let there = scope.spawn(there);
        let here = here();
        there.join().ok().context("a thread panicked")??;
        here
    })
}

pub(crate) fn load<S: Blocking>(workload: Workload, plan: Plan, address: &str) -> Result<Load> {
    let dialer = Arc::new(S::dialer(address, workload)?);
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
        Workload::Duplex => duplex_load::<S>(dialer.dial()?, plan),
        Workload::Connect | Workload::Again => dial_load(Arc::clone(dialer), plan),
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
    let mut times = Times::begin();
    stream.write_all(&length.to_be_bytes())?;
    give(stream, length)?;
    stream.read_exact(&mut [0])?;
    times.done(times.begin);
    Ok(times.end())
}

fn duplex_load<S: Blocking>(stream: S::Stream, plan: Plan) -> Result<Load> {
    let (mut reader, mut writer) = S::split(stream)?;
    let mut transfer = move |length: u64| {
        let mut times = Times::begin();
        writer.write_all(&length.to_be_bytes())?;
        both(|| take(&mut reader, length), || give(&mut writer, length))?;
        reader.read_exact(&mut [0])?;
        times.done(times.begin);
        Ok(times.end())
    };
    transfer(plan.warm_up_bytes())?;
    Ok(Box::new(move || transfer(plan.bulk_bytes())))
}

fn dial_load<S: Blocking>(dialer: Arc<S>, plan: Plan) -> Result<Load> {
    dials(dialer.as_ref(), plan.dials / 10)?;
    Ok(Box::new(move || dials(dialer.as_ref(), plan.dials)))
}

fn dials<S: Blocking>(dialer: &S, count: usize) -> Result<Times> {
    let mut times = Times::begin();
    for _ in 0..count {
        let begin = Instant::now();
        let mut stream = dialer.dial()?;
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
