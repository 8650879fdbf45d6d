//! Drives the services of [`crate::protocol::kv`] over a mesh of streams, for a user who types, in the threads that a [`Threading`] says.

mod call_cost;
mod capture;
mod crew;
mod disk;
mod member;
mod options;
mod threading;

use std::{
    io::{self, BufRead, Write},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::bounded;
use crust::Identity;
use ring::rand::{SecureRandom as _, SystemRandom};
use transport::{StreamSet, Transport};

pub use call_cost::call_cost;
use capture::Capture;
use crew::{Batch, Crew, Make, Tell};
use disk::Disk;
use member::Member;
pub use options::Options;
pub use threading::{Place, References, ServiceName, Streams, Threading};

use crate::{
    lines::{Line, read_lines},
    mesh::{Group, micros_since_epoch, run_one_thread_with, run_two_threads_with},
    protocol::{
        kv::{
            Api, ArcRef, Gate, GateSettings, Onion, OnionSettings, Peer, RcRef, Reference, Router, Signer,
            Store,
        },
        mesh::{Mesh, Settings},
    },
};

/// Runs a node, prints its own endpoint, and then does what `input` says, a command a line, until it ends and every command has its
/// answer. At last it prints what was carried for each peer, as the streams have counted it and as the stack has.
///
/// # Errors
///
/// When the system gives no socket or thread, or `output` or the file cannot be written to.
pub fn run(input: impl BufRead + Send + 'static, output: impl Write, options: Options) -> io::Result<()> {
    match options.threading.held_by() {
        References::Arc => run_with::<ArcRef>(input, output, options),
        References::Rc => run_with::<RcRef>(input, output, options),
    }
}

/// What comes from other threads than those of the streams.
enum Told<R: Reference> {
    Line(Line),
    End,
    Done(Batch<R>),
}

fn run_with<R: Reference>(
    input: impl BufRead + Send + 'static,
    mut output: impl Write,
    options: Options,
) -> io::Result<()> {
    let disk = options.file.as_deref().map(Disk::open).transpose()?;
    let capture = options.capture.as_deref().map(Capture::create).transpose()?;
    let group = Arc::new(Group::open(Identity::generate(), &options.listen)?);
    let endpoint = group.endpoint()?;
    writeln!(output, "{endpoint}")?;
    output.flush()?;
    let set = StreamSet::new(group.transport()).map_err(io::Error::other)?;
    let (told, inputs) = bounded(INPUTS_AHEAD);
    let (waker, done) = (set.waker(), told.clone());
    let tell: Tell<R> = Arc::new(move |batch| {
        let told = done.send(Told::Done(batch)).is_ok();
        waker.wake();
        told
    });
    let me = Peer { key: endpoint.public_key(), contact: endpoint.to_string() };
    let services = services(&me, group.transport(), disk, &options)?;
    let crew = Crew::start(&options.threading, services, &tell)?;
    let waker = set.waker();
    thread::Builder::new().name("kv-input".to_owned()).spawn(move || {
        read_lines(input, MAX_LINE, |line| {
            let told = told.send(line.map_or(Told::End, Told::Line)).is_ok();
            waker.wake();
            told
        });
    })?;
    let settings = Settings { open: true, ..Settings::default() };
    let mut mesh = Mesh::new(me.key, "kv", settings);
    let mut member = Member::new(crew, Arc::clone(&group), output, capture);
    for other in options.others {
        member.connect(Instant::now(), &mut mesh, other);
    }
    let traffic = match options.threading.streams_by() {
        Streams::TwoThreads => run_two_threads_with(&mut mesh, &mut member, group, &inputs, Member::hear),
        Streams::OneThread => run_one_thread_with(&mut mesh, &mut member, group, set, &inputs, Member::hear),
    };
    drop(inputs); // nobody waits for this thread any more
    let mut output = member.end()?;
    for (peer, traffic) in traffic? {
        writeln!(output, "traffic {peer} {traffic}")?;
    }
    output.flush()
}

/// How each service is made, in the order gate, router, store, api, onion.
fn services<R: Reference>(
    me: &Peer,
    transport: &Transport,
    disk: Option<Disk>,
    options: &Options,
) -> io::Result<[Make<R>; 5]> {
    let records = disk.as_ref().map_or_else(|| Ok(Vec::new()), Disk::records)?;
    let (genuine, others): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.verify().is_ok());
    if !others.is_empty() {
        eprintln!("{} records of the file are left out: their authors have not signed them", others.len());
    }
    let gate = GateSettings {
        me: me.key,
        contact: me.contact.clone(),
        seed: secret()?,
        lifetime: PROOF,
        allowed: options.allowed.clone(),
    };
    let onion = OnionSettings {
        me: me.key,
        seed: secret()?,
        micros: micros_since_epoch(),
        answer_within: options.answer_within,
        hidden: options.rules.hide_origin,
    };
    let onion_sign = signer(transport);
    let (router_me, rules, seed) = (me.clone(), options.rules.clone(), secret()?);
    let (gate_sign, api_sign, key) = (signer(transport), signer(transport), me.key);
    Ok([
        Box::new(move |station| station.host.add_gate(Gate::new(gate, gate_sign))),
        Box::new(move |station| station.host.add_router(Router::new(router_me, seed, rules))),
        Box::new(move |station| {
            station.host.add_store(Store::new(genuine));
            station.disk = disk;
        }),
        Box::new(move |station| station.host.add_api(Api::new(key, api_sign))),
        Box::new(move |station| {
            station.host.add_onion(Onion::new(Instant::now(), onion, onion_sign));
        }),
    ])
}

fn signer(transport: &Transport) -> Signer {
    let transport = transport.clone();
    Box::new(move |purpose, bytes| transport.sign_for(purpose, bytes))
}

fn secret() -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(secret)
}

/// How long a peer may take to prove who it is.
const PROOF: Duration = Duration::from_secs(3);
const MAX_LINE: usize = 16 << 10;
const INPUTS_AHEAD: usize = 1_024;
