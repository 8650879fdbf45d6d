use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use crust::{ConnectError, ConnectTrace, Endpoint, Path, PublicKey, Road, Stream, error_chain};
use serde::Serialize;

/// What a command reports: a line of JSON each with `--json`, else a line for a person.
///
/// A field is never renamed; `null` is "not measured".
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event {
    Listening { id: String, contact: Option<String>, endpoints: Vec<String>, lan_port: Option<u16> },
    Discovered { peer: String, endpoints: Vec<String> },
    Connected(Connected),
    Progress { bytes: u64, total_bytes: u64 },
    Perf(Perf),
    Closed { peer: Option<String>, reason: Option<String> },
    Done { bytes: u64, elapsed_ms: f64 },
    Doctor(Doctor),
    Introducer { state: &'static str, endpoint: String, reason: Option<String> },
    Router { state: &'static str, place: String, external: Option<String>, reason: Option<String> },
    Dht { state: &'static str, nodes: Option<u32>, reason: Option<String> },
    Trace(Trace),
    Failed { peer: Option<String>, attempts: Vec<Attempt>, advice: Vec<String> },
    Error { kind: &'static str, message: String },
}

#[derive(Debug, Serialize)]
pub(crate) struct Connected {
    peer: String,
    road: String,
    transport: String,
    local: String,
    remote: String,
    elapsed_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Perf {
    pub(crate) transport: String,
    pub(crate) connect_ms: f64,
    pub(crate) rtt_p50_us: f64,
    pub(crate) rtt_p99_us: f64,
    pub(crate) up_bytes_per_s: f64,
    pub(crate) down_bytes_per_s: f64,
}

/// What is between this host and the internet.
#[derive(Debug, Serialize)]
pub(crate) struct Doctor {
    pub(crate) local: Vec<String>,
    pub(crate) public: Vec<String>,
    pub(crate) mapping: Option<String>,
    pub(crate) filtering: Option<String>,
    pub(crate) ports: Option<String>,
    pub(crate) port_step: Option<i16>,
    pub(crate) hairpin: Option<bool>,
    pub(crate) udp: Option<&'static str>,
    pub(crate) nat_levels: Option<u8>,
    pub(crate) binding_lifetime_s: Option<u64>,
    pub(crate) port_mapper: Option<&'static str>,
    /// What the DHT says, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dht: Option<&'static str>,
    pub(crate) advice: Vec<String>,
}

/// How a call of connect went.
#[derive(Debug, Serialize)]
pub(crate) struct Trace {
    peer: String,
    elapsed_ms: f64,
    steps: Vec<Step>,
    /// What routers forward to us, if they are asked.
    router: Option<String>,
    /// What came of looking the peer up in the DHT, if that was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    dht: Option<String>,
    #[serde(skip)]
    text: String,
}

/// One road of it; without a reason it is the one that was taken.
#[derive(Debug, Serialize)]
struct Step {
    road: String,
    to: String,
    started_ms: f64,
    elapsed_ms: f64,
    reason: Option<String>,
}

/// One way that was tried in vain.
#[derive(Debug, Serialize)]
pub(crate) struct Attempt {
    road: String,
    transport: String,
    remote: Option<String>,
    elapsed_ms: f64,
    reason: String,
}

impl Event {
    /// A stream is there; `elapsed` is how long dialling took, for who dialled.
    pub(crate) fn connected(stream: &Stream, elapsed: Option<Duration>) -> Self {
        let Path { kind, scheme, local, remote, .. } = stream.path();
        Self::Connected(Connected {
            peer: stream.public_key().to_string(),
            road: Road::from(kind).to_string(),
            transport: scheme.to_string(),
            local: local.to_string(),
            remote: remote.to_string(),
            elapsed_ms: elapsed.map(millis),
        })
    }

    /// A beacon said where a peer is.
    pub(crate) fn discovered(peer: PublicKey, endpoints: &[Endpoint]) -> Self {
        let endpoints = endpoints.iter().map(ToString::to_string).collect();
        Self::Discovered { peer: peer.to_string(), endpoints }
    }

    /// How a stream to a peer came about, or did not.
    pub(crate) fn trace(peer: PublicKey, trace: &ConnectTrace) -> Self {
        let steps = trace.steps().iter().map(|step| Step {
            road: step.road.to_string(),
            to: step.to.clone(),
            started_ms: millis(step.started),
            elapsed_ms: millis(step.took),
            reason: step.failure.clone(),
        });
        let steps = steps.collect();
        let (peer, elapsed_ms) = (peer.to_string(), millis(trace.took()));
        let router = trace.router().map(ToOwned::to_owned);
        let dht = trace.dht().map(ToOwned::to_owned);
        Self::Trace(Trace { peer, elapsed_ms, steps, router, dht, text: trace.to_string() })
    }

    pub(crate) fn failed(error: &ConnectError) -> Self {
        let attempts = error.attempts().iter().map(|attempt| Attempt {
            road: attempt.road.to_string(),
            transport: attempt.endpoint.scheme().to_string(),
            remote: attempt.addr.map(|addr| addr.to_string()),
            elapsed_ms: millis(attempt.waited),
            reason: error_chain(attempt.error.as_ref()),
        });
        let advice = error.trace().advice().to_vec();
        Self::Failed { peer: Some(error.peer().to_string()), attempts: attempts.collect(), advice }
    }

    pub(crate) fn done(bytes: u64, elapsed: Duration) -> Self {
        Self::Done { bytes, elapsed_ms: millis(elapsed) }
    }

    /// What a person reads, if it is worth a line.
    fn text(&self) -> Option<String> {
        match self {
            Self::Connected(Connected { peer, road, transport, remote, elapsed_ms, .. }) => {
                let took = elapsed_ms.map(|elapsed| format!(" in {elapsed} ms")).unwrap_or_default();
                Some(format!("connected to {peer} at {remote}, {transport}, {road}{took}"))
            }
            Self::Closed { reason: Some(reason), .. } => Some(format!("closed: {reason}")),
            Self::Failed { attempts, advice, .. } if attempts.len() > 1 || !advice.is_empty() => {
                let advice = advice.iter().map(|advice| format!("  {advice}"));
                let attempts = if attempts.len() > 1 { &attempts[..] } else { &[] };
                let lines = attempts.iter().map(|attempt| {
                    let Attempt { transport, remote, elapsed_ms, reason, .. } = attempt;
                    let remote = remote.as_deref().unwrap_or("?");
                    format!("  {transport} to {remote}, {elapsed_ms} ms: {reason}")
                });
                Some(lines.chain(advice).collect::<Vec<_>>().join("\n"))
            }
            Self::Trace(trace) => Some(trace.text.clone()),
            Self::Error { message, .. } => Some(format!("crust: {message}")),
            Self::Introducer { state, endpoint, reason } => {
                let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                Some(format!("introducer {endpoint}: {state}{reason}"))
            }
            Self::Router { state, place, external, reason } => {
                let external = external.as_ref().map(|external| format!(" {external}")).unwrap_or_default();
                let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                Some(format!("router, for {place}: {state}{external}{reason}"))
            }
            Self::Dht { nodes: Some(nodes), .. } => {
                Some(format!("the DHT: {nodes} nodes know where this peer is"))
            }
            Self::Dht { reason, .. } => {
                let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                Some(format!("the DHT: it is not told where this peer is{reason}"))
            }
            Self::Listening { .. }
            | Self::Discovered { .. }
            | Self::Progress { .. }
            | Self::Perf(_)
            | Self::Doctor(_)
            | Self::Closed { .. }
            | Self::Done { .. }
            | Self::Failed { .. } => None,
        }
    }
}

/// Where events go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    /// Standard output carries a stream's bytes, so events go to standard error.
    piped: bool,
    silent: bool,
    verbose: bool,
}

impl Output {
    pub(crate) const fn new(json: bool, piped: bool) -> Self {
        Self { json, piped, silent: false, verbose: false }
    }

    /// The same, telling how things came about as well.
    pub(crate) const fn verbose(self, verbose: bool) -> Self {
        Self { verbose, ..self }
    }

    /// The same, saying nothing.
    pub(crate) const fn silenced(self) -> Self {
        Self { silent: true, ..self }
    }

    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether it is told how things came about.
    pub(crate) const fn is_verbose(&self) -> bool {
        self.verbose
    }

    pub(crate) fn shows_bars(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// Reports. That nobody listens any more is no error: what counts is the exit status.
    pub(crate) fn event(self, event: &Event) {
        if self.json {
            let line = serde_json::to_string(event).expect("events hold text and numbers only");
            self.write_line(&line, self.piped);
        } else if let Some(text) = event.text() {
            self.write_line(&text, true);
        }
    }

    /// Prints what was asked for, on standard output, in whatever form.
    pub(crate) fn result(self, text: &str) {
        self.write_line(text, false);
    }

    /// Says how something came about, to a person who wants to know.
    pub(crate) fn detail(self, event: &Event) {
        if self.verbose {
            self.event(event);
        }
    }

    /// Says something to a person, beside the data.
    pub(crate) fn note(self, text: &str) {
        if !self.json {
            self.write_line(text, true);
        }
    }

    /// Prints a result for a person: on standard output, unless that carries a stream's bytes.
    pub(crate) fn print(self, text: &str) {
        if !self.json {
            self.write_line(text, self.piped);
        }
    }

    fn write_line(self, line: &str, to_stderr: bool) {
        if self.silent {
            return;
        }
        let line = format!("{line}\n");
        let _ = if to_stderr {
            io::stderr().lock().write_all(line.as_bytes())
        } else {
            let mut out = io::stdout().lock();
            out.write_all(line.as_bytes()).and_then(|()| out.flush())
        };
    }
}

/// Milliseconds with three places: the time of a connection on one machine is a fraction of one.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
