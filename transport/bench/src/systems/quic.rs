//! quinn on tokio, as its own examples and benchmarks do it: a task for each connection and stream.

use std::any::Any;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, TokioRuntime, TransportConfig,
};
use socket2::Socket;
use tokio::runtime::{Builder, Handle};

use super::{CHUNK_BYTES, Load, MESSAGE_BYTES, Times, WARM_UP, keys};
use crate::machine;
use crate::plan::{Plan, Workload};

/// What quinn's own benchmark asks for: enough that a burst of segments is not dropped by the receiving socket.
const SOCKET_BUFFER_BYTES: usize = 2 << 20;

/// Our stream window: 1 Gbit/s over 100 ms.
const WIDE_BYTES: u32 = 12_500 << 10;

/// How many threads tokio may use, and how much quinn may have under way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flavour {
    OneThread,
    /// The same, with windows as wide as ours grow to.
    Wide,
    ThreadEachCore,
}

pub(crate) fn serve(workload: Workload, flavour: Flavour) -> Result<(String, Box<dyn Any>)> {
    let handle = start_runtime(flavour)?;
    let tls = Arc::new(QuicServerConfig::try_from(keys::server_config()?)?);
    let mut config = quinn::ServerConfig::with_crypto(tls);
    config.transport_config(transport_config(flavour));
    let endpoint = endpoint(&handle, Some(config))?;
    let address = endpoint.local_addr()?.to_string();
    handle.spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(serve_connection(incoming, workload));
        }
    });
    Ok((address, Box::new(handle)))
}

async fn serve_connection(incoming: Incoming, workload: Workload) -> Result<()> {
    let connection = incoming.await?;
    loop {
        let (sender, receiver) = connection.accept_bi().await?;
        // A stream ends when its dialer goes away; there is nothing to report then.
        match workload {
            Workload::Bulk => tokio::spawn(swallow(sender, receiver)),
            Workload::Duplex => tokio::spawn(swallow_and_send(sender, receiver)),
            _ => tokio::spawn(echo(sender, receiver)),
        };
    }
}

async fn echo(mut sender: SendStream, mut receiver: RecvStream) -> Result<()> {
    let mut buffer = [0; 4096];
    while let Some(length) = receiver.read(&mut buffer).await? {
        sender.write_all(&buffer[..length]).await?;
    }
    Ok(())
}

async fn swallow(mut sender: SendStream, mut receiver: RecvStream) -> Result<()> {
    loop {
        let mut length = [0; 8];
        receiver.read_exact(&mut length).await?;
        take(&mut receiver, u64::from_be_bytes(length)).await?;
        sender.write_all(&[1]).await?;
    }
}

async fn swallow_and_send(mut sender: SendStream, mut receiver: RecvStream) -> Result<()> {
    loop {
        let mut length = [0; 8];
        receiver.read_exact(&mut length).await?;
        let length = u64::from_be_bytes(length);
        tokio::try_join!(take(&mut receiver, length), give(&mut sender, length))?;
        sender.write_all(&[1]).await?;
    }
}

/// `read_chunk` spares quinn a copy.
async fn take(receiver: &mut RecvStream, length: u64) -> Result<()> {
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left)?;
        let chunk = receiver.read_chunk(most, true).await?.context("the transfer ended early")?;
        left -= chunk.bytes.len() as u64;
    }
    Ok(())
}

async fn give(sender: &mut SendStream, length: u64) -> Result<()> {
    let chunk = vec![7; CHUNK_BYTES];
    for _ in 0..length / CHUNK_BYTES as u64 {
        sender.write_all(&chunk).await?;
    }
    Ok(())
}

pub(crate) fn load(workload: Workload, plan: Plan, address: &str, flavour: Flavour) -> Result<Load> {
    let address: SocketAddr = address.parse()?;
    let handle = start_runtime(flavour)?;
    let tls = Arc::new(QuicClientConfig::try_from(keys::client_config()?)?);
    let mut config = quinn::ClientConfig::new(tls);
    config.transport_config(transport_config(flavour));
    let mut endpoint = endpoint(&handle, None)?;
    endpoint.set_default_client_config(config);
    match workload {
        Workload::Echo => {
            let streams = wait(&handle, async move {
                let mut streams = Vec::new();
                for _ in 0..plan.streams {
                    streams.push(dial(&endpoint, address).await?);
                }
                Ok(streams)
            })?;
            echo_load(handle, streams, plan)
        }
        Workload::Shared => {
            let streams = wait(&handle, async move {
                let mut streams = vec![dial(&endpoint, address).await?];
                for _ in 1..plan.streams {
                    streams.push(dial_shared(&streams[0].connection).await?);
                }
                Ok(streams)
            })?;
            echo_load(handle, streams, plan)
        }
        Workload::Count => {
            Ok(Box::new(move || wait(&handle, counted_echoes(endpoint.clone(), address, plan.dials))))
        }
        Workload::Bulk => bulk_load(handle, endpoint, address, plan, Way::One),
        Workload::Duplex => bulk_load(handle, endpoint, address, plan, Way::Both),
        Workload::Connect | Workload::Again => {
            wait(&handle, dials(endpoint.clone(), address, plan.dials / 10))?;
            Ok(Box::new(move || wait(&handle, dials(endpoint.clone(), address, plan.dials))))
        }
        Workload::Idle => {
            let mut kept = Vec::new();
            Ok(Box::new(move || {
                let (streams, times) = wait(&handle, idle(endpoint.clone(), address, plan.streams))?;
                kept.extend(streams);
                Ok(times)
            }))
        }
    }
}

/// One stream of one connection. The connection is closed when this goes.
struct Dialled {
    sender: SendStream,
    receiver: RecvStream,
    connection: Connection,
}

async fn dial(endpoint: &Endpoint, address: SocketAddr) -> Result<Dialled> {
    let connection = endpoint.connect(address, keys::SERVER_NAME)?.await?;
    dial_shared(&connection).await
}

async fn dial_shared(connection: &Connection) -> Result<Dialled> {
    let (sender, receiver) = connection.open_bi().await?;
    Ok(Dialled { sender, receiver, connection: connection.clone() })
}

fn echo_load(handle: Handle, streams: Vec<Dialled>, plan: Plan) -> Result<Load> {
    let (streams, _) = wait(&handle, echoes_on_all(streams, Instant::now() + WARM_UP))?;
    let mut streams = Some(streams);
    Ok(Box::new(move || {
        let held = streams.take().context("the streams come back from each measurement")?;
        let (held, times) = wait(&handle, echoes_on_all(held, Instant::now() + plan.time))?;
        streams = Some(held);
        Ok(times)
    }))
}

/// A task for each stream; one stream needs none.
async fn echoes_on_all(mut streams: Vec<Dialled>, end: Instant) -> Result<(Vec<Dialled>, Times)> {
    if let [stream] = streams.as_mut_slice() {
        let times = echoes(stream, end).await?;
        return Ok((streams, times));
    }
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            tokio::spawn(async move { echoes(&mut stream, end).await.map(|times| (stream, times)) })
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await??);
    }
    let (streams, times): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    Ok((streams, Times::join(times)))
}

async fn echoes(stream: &mut Dialled, end: Instant) -> Result<Times> {
    let mut times = Times::begin();
    let mut now = times.begin;
    while now < end {
        echo_once(stream).await?;
        now = times.done(now);
    }
    Ok(times.end())
}

async fn counted_echoes(endpoint: Endpoint, address: SocketAddr, count: usize) -> Result<Times> {
    let mut stream = dial(&endpoint, address).await?;
    let mut times = Times::begin();
    for _ in 0..count {
        echo_once(&mut stream).await?;
        times.done(times.begin);
    }
    Ok(times.end())
}

async fn echo_once(stream: &mut Dialled) -> Result<()> {
    let message = [7; MESSAGE_BYTES];
    let mut answer = [0; MESSAGE_BYTES];
    stream.sender.write_all(&message).await?;
    stream.receiver.read_exact(&mut answer).await?;
    ensure!(answer == message, "the echo differs");
    Ok(())
}

fn bulk_load(handle: Handle, endpoint: Endpoint, address: SocketAddr, plan: Plan, way: Way) -> Result<Load> {
    let mut stream = Some(wait(&handle, async move {
        let mut stream = dial(&endpoint, address).await?;
        transfer(&mut stream, plan.warm_up_bytes(), way).await?;
        Ok(stream)
    })?);
    Ok(Box::new(move || {
        let mut held = stream.take().context("the stream comes back from each transfer")?;
        let (held, times) = wait(&handle, async move {
            let times = transfer(&mut held, plan.bulk_bytes(), way).await?;
            Ok((held, times))
        })?;
        stream = Some(held);
        Ok(times)
    }))
}

#[derive(Debug, Clone, Copy)]
enum Way {
    One,
    Both,
}

async fn transfer(stream: &mut Dialled, length: u64, way: Way) -> Result<Times> {
    let mut times = Times::begin();
    stream.sender.write_all(&length.to_be_bytes()).await?;
    match way {
        Way::One => give(&mut stream.sender, length).await?,
        Way::Both => {
            tokio::try_join!(give(&mut stream.sender, length), take(&mut stream.receiver, length))?;
        }
    }
    stream.receiver.read_exact(&mut [0]).await?;
    times.done(times.begin);
    Ok(times.end())
}

async fn dials(endpoint: Endpoint, address: SocketAddr, count: usize) -> Result<Times> {
    let mut times = Times::begin();
    for _ in 0..count {
        let begin = Instant::now();
        echo_once(&mut dial(&endpoint, address).await?).await?;
        times.done(begin);
    }
    Ok(times.end())
}

async fn idle(endpoint: Endpoint, address: SocketAddr, count: usize) -> Result<(Vec<Dialled>, Times)> {
    let mut times = Times::begin();
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Instant::now();
        let mut stream = dial(&endpoint, address).await?;
        echo_once(&mut stream).await?;
        streams.push(stream);
        times.done(begin);
    }
    Ok((streams, times.end()))
}

/// quinn's defaults, but that idle connections stay.
fn transport_config(flavour: Flavour) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.max_idle_timeout(None);
    if matches!(flavour, Flavour::Wide) {
        config.stream_receive_window(WIDE_BYTES.into()).send_window(WIDE_BYTES.into());
    }
    Arc::new(config)
}

fn endpoint(handle: &Handle, config: Option<quinn::ServerConfig>) -> Result<Endpoint> {
    let _inside = handle.enter();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = Socket::from(socket);
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    Ok(Endpoint::new(EndpointConfig::default(), config, socket.into(), Arc::new(TokioRuntime))?)
}

/// A runtime on threads of its own, for as long as the process lives: connections want to be served between
/// measurements too.
fn start_runtime(flavour: Flavour) -> Result<Handle> {
    let runtime = match flavour {
        Flavour::OneThread | Flavour::Wide => Builder::new_current_thread().enable_all().build()?,
        Flavour::ThreadEachCore => {
            Builder::new_multi_thread().worker_threads(machine::cores()).enable_all().build()?
        }
    };
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    Ok(handle)
}

/// Runs something on the runtime's threads and waits for it here.
fn wait<T: Send + 'static>(
    handle: &Handle,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    handle.spawn(async move {
        // The receiver waits just below.
        let _ = sender.send(work.await);
    });
    receiver.recv().context("the runtime ended")?
}
