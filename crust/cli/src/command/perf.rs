mod protocol;

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};

use crossbeam::{channel::bounded, select};
use crust::{AcceptError, ConnectOptions, Contact, ProtocolLabel, Stream};

use self::protocol::{Request, Tally};
use super::{Running, connect::dial, dialling};
use crate::{
    arguments::{Common, PerfArguments},
    events::{Event, Output, Perf, millis},
    failure::Failure,
    setup::{self, Who},
};

/// Measures on streams what an application would see.
pub(super) fn run(arguments: &PerfArguments, common: &Common, output: Output) -> Result<(), Failure> {
    match &arguments.peer {
        Some(peer) => measure(peer, common, output),
        None => serve(common, output),
    }
}

fn serve(common: &Common, output: Output) -> Result<(), Failure> {
    let config = setup::config(common, Who::Known, output)?;
    let mut running = Running::start(config.protocols([label()]))?;
    let contact = running.announce(output)?;
    output.print(&format!("crust perf {contact}"));
    thread::scope(|scope| {
        let (take_place, places) = bounded(MAX_STREAMS);
        (0..MAX_STREAMS).for_each(|_| take_place.send(()).expect("the channel was made for as many"));
        loop {
            select! {
                recv(places) -> _ => {}
                recv(running.interrupt.signal()) -> _ => break,
            }
            let Ok(stream) = running.acceptor.accept() else { break };
            let give_back = take_place.clone();
            scope.spawn(move || {
                let peer = stream.public_key().to_string();
                if let Err(error) = answer(&stream) {
                    output
                        .event(&Event::Closed { peer: Some(peer), reason: Some(crust::error_chain(&error)) });
                }
                let _ = give_back.send(());
            });
        }
        running.controller.close();
    });
    running.served(Err(AcceptError::Closed.into()))
}

/// Does what one stream asks for.
fn answer(mut stream: &Stream) -> io::Result<()> {
    let mut request = [0; Request::BYTES];
    stream.read_exact(&mut request)?;
    let mut buffer = vec![0; BULK_BYTES];
    match Request::decode(request) {
        Some(Request::Echo) => loop {
            match stream.read(&mut buffer)? {
                0 => break,
                length => stream.write_all(&buffer[..length])?,
            }
        },
        Some(Request::Take) => {
            let mut tally = Tally::default();
            loop {
                match stream.read(&mut buffer)? {
                    0 => break,
                    length => tally.bytes += length as u64,
                }
            }
            stream.write_all(&tally.encode())?;
        }
        Some(Request::Give { duration }) => {
            let end = Instant::now() + duration.min(MAX_GIVING);
            while Instant::now() < end {
                stream.write_all(&buffer)?;
            }
        }
        None => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a measurement that is not known here"));
        }
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

fn measure(peer: &Contact, common: &Common, output: Output) -> Result<(), Failure> {
    let running = Running::start(dialling(setup::config(common, Who::Fresh, output)?))?;
    running.completed(measure_all(&running, peer, output))
}

fn measure_all(running: &Running, peer: &Contact, output: Output) -> Result<(), Failure> {
    let open = |output| dial(&running.controller, peer, &ConnectOptions::new().protocol(label()), output);
    let started = Instant::now();
    let stream = open(output)?;
    let connect = started.elapsed();
    let broken = |error: io::Error| Failure::of("stream", &error);
    let transport = stream.path().scheme;
    let round_trips = echo(&stream).map_err(broken)?;
    // The first one told of itself; the others go the same way.
    let quiet = output.silenced();
    let up_bytes_per_s = push(&open(quiet)?).map_err(broken)?;
    let down_bytes_per_s = pull(&open(quiet)?).map_err(broken)?;
    let perf = Perf {
        transport: transport.to_string(),
        connect_ms: millis(connect),
        rtt_p50_us: quantile(&round_trips, 50),
        rtt_p99_us: quantile(&round_trips, 99),
        up_bytes_per_s,
        down_bytes_per_s,
    };
    output.print(&format!(
        "{transport}: connected in {:.3} ms; 64 bytes there and back in {:.1} µs (median), {:.1} µs (99 of 100)\n\
         {transport}: {:.1} MB/s up, {:.1} MB/s down",
        perf.connect_ms,
        perf.rtt_p50_us,
        perf.rtt_p99_us,
        perf.up_bytes_per_s / 1e6,
        perf.down_bytes_per_s / 1e6
    ));
    output.event(&Event::Perf(perf));
    Ok(())
}

/// Round trips of 64 bytes, sorted.
fn echo(mut stream: &Stream) -> io::Result<Vec<Duration>> {
    stream.write_all(&Request::Echo.encode())?;
    let mut ping = [0x2a; 64];
    let mut round_trips = Vec::with_capacity(ROUNDS);
    let end = Instant::now() + BULK_TIME;
    for round in 0..WARM_UP + ROUNDS {
        let sent = Instant::now();
        stream.write_all(&ping)?;
        stream.read_exact(&mut ping)?;
        if round >= WARM_UP {
            round_trips.push(sent.elapsed());
        }
        if Instant::now() > end && !round_trips.is_empty() {
            break;
        }
    }
    stream.shutdown(Shutdown::Write)?;
    round_trips.sort_unstable();
    Ok(round_trips)
}

/// Bytes a second to the peer, by the time when it had counted them all.
fn push(mut stream: &Stream) -> io::Result<f64> {
    stream.write_all(&Request::Take.encode())?;
    let bulk = vec![0x55; BULK_BYTES];
    let started = Instant::now();
    while started.elapsed() < BULK_TIME {
        stream.write_all(&bulk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut tally = [0; Tally::BYTES];
    stream.read_exact(&mut tally)?;
    Ok(rate(Tally::decode(tally).bytes, started.elapsed()))
}

/// Bytes a second from the peer, from the first to the last.
fn pull(mut stream: &Stream) -> io::Result<f64> {
    stream.write_all(&Request::Give { duration: BULK_TIME }.encode())?;
    let mut buffer = vec![0; BULK_BYTES];
    let mut total = stream.read(&mut buffer)? as u64;
    let started = Instant::now();
    let first = total;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(rate(total - first, started.elapsed())),
            length => total += length as u64,
        }
    }
}

fn rate(bytes: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate is not exact to the byte")]
    let bytes = bytes as f64;
    (bytes / time.as_secs_f64().max(1e-9)).round()
}

/// Microseconds with one place.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    let time = sorted.get(at).copied().unwrap_or_default();
    (time.as_secs_f64() * 1e7).round() / 10.0
}

fn label() -> ProtocolLabel {
    ProtocolLabel::new("crust-perf/1").expect("it is short enough")
}

/// Each has a thread.
const MAX_STREAMS: usize = 64;
/// Longer than a congestion window takes to grow, short enough to wait for.
const BULK_TIME: Duration = Duration::from_secs(2);
/// What a stranger may make us send for.
const MAX_GIVING: Duration = Duration::from_secs(60);
const BULK_BYTES: usize = 128 << 10;
/// Caches and schedulers settle.
const WARM_UP: usize = 100;
/// The 99th of 100 has then fifty above it.
const ROUNDS: usize = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_and_of_many() {
        let times = |n: u64| (1..=n).map(Duration::from_micros).collect::<Vec<_>>();
        assert!((quantile(&times(1), 99) - 1.0).abs() < 1e-9);
        assert!((quantile(&times(100), 50) - 51.0).abs() < 1e-9);
        assert!((quantile(&times(1_000), 99) - 991.0).abs() < 1e-9);
        assert!(quantile(&[], 50).abs() < 1e-9);
    }
}
