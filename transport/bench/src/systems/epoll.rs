//! Plain mio: one thread waits on all streams of its end. What a `StreamSet` is measured against.

use std::any::Any;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::{Load, MESSAGE_BYTES, Times, WARM_UP};
use crate::plan::{Plan, Workload};

const LISTENER: Token = Token(usize::MAX);

/// An echo server on one thread.
pub(crate) fn serve() -> Result<(String, Box<dyn Any>)> {
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?.to_string();
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    thread::spawn(move || {
        let mut streams: Vec<Option<TcpStream>> = Vec::new();
        let mut events = Events::with_capacity(1024);
        while poll.poll(&mut events, None).is_ok() {
            for event in &events {
                if event.token() == LISTENER {
                    accept_all(&listener, &poll, &mut streams);
                } else if let Some(slot) = streams.get_mut(event.token().0)
                    && slot.as_mut().is_some_and(|stream| echo(stream).is_err())
                {
                    *slot = None;
                }
            }
        }
    });
    Ok((address, Box::new(())))
}

fn accept_all(listener: &TcpListener, poll: &Poll, streams: &mut Vec<Option<TcpStream>>) {
    while let Ok((mut stream, _)) = listener.accept() {
        let registered = poll.registry().register(&mut stream, Token(streams.len()), Interest::READABLE);
        if registered.and_then(|()| stream.set_nodelay(true)).is_ok() {
            streams.push(Some(stream));
        }
    }
}

/// Echoes what is there; an error when the stream is over. An answer fits the socket, as its dialer waits for it.
fn echo(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => bail!("the stream ended"),
            Ok(length) => {
                stream.write_all(&buffer[..length])?;
                // Less than asked for: the socket is drained.
                if length < buffer.len() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) fn load(workload: Workload, plan: Plan, address: &str) -> Result<Load> {
    let address: SocketAddr = address.parse()?;
    match workload {
        Workload::Echo => {
            let mut client = Client::dial(address, plan.streams)?;
            client.echoes(Instant::now() + WARM_UP)?;
            Ok(Box::new(move || client.echoes(Instant::now() + plan.time)))
        }
        Workload::Idle => {
            let mut clients = Vec::new();
            Ok(Box::new(move || {
                let mut client = Client::dial(address, plan.streams)?;
                let times = client.echoes(Instant::now())?;
                clients.push(client);
                Ok(times)
            }))
        }
        _ => {
            bail!("plain epoll is only measured with echoes for a time and idle streams")
        }
    }
}

/// Many streams on one thread.
struct Client {
    poll: Poll,
    events: Events,
    streams: Vec<TcpStream>,
}

impl Client {
    fn dial(address: SocketAddr, count: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let mut streams = Vec::with_capacity(count);
        for token in 0..count {
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(token), Interest::READABLE)?;
            streams.push(stream);
        }
        Ok(Self { poll, events: Events::with_capacity(1024), streams })
    }

    /// Keeps one message under way on every stream until `end`, then takes in the last ones.
    fn echoes(&mut self, end: Instant) -> Result<Times> {
        let message = [7; MESSAGE_BYTES];
        let mut times = Times::begin();
        let mut begins = vec![times.begin; self.streams.len()];
        let mut under_way = self.streams.len();
        for stream in &mut self.streams {
            stream.write_all(&message)?;
        }
        while under_way > 0 {
            self.poll.poll(&mut self.events, None)?;
            for event in &self.events {
                let Token(index) = event.token();
                let mut answer = [0; MESSAGE_BYTES + 1];
                let length = self.streams[index].read(&mut answer)?;
                ensure!(answer[..length] == message, "the echo differs");
                let now = times.done(begins[index]);
                if now < end {
                    begins[index] = now;
                    self.streams[index].write_all(&message)?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok(times.end())
    }
}
