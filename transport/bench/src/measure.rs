//! One measurement: a server, a client, and what both used meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::control::{Measured, Process, Usage};
use crate::machine;
use crate::path::{Link, Path};
use crate::plan::{Plan, System, Workload};

/// What came of one pair of processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) client: Measured,
    /// What a bulk transfer carried.
    pub(crate) bytes: u64,
    pub(crate) server_before: Usage,
    pub(crate) server_after: Usage,
    /// Share of the whole machine that neither process used, nor idled away: other people's work, mostly.
    pub(crate) others: f64,
}

impl Sample {
    /// Processor time of both ends.
    pub(crate) fn cpu(&self) -> Duration {
        self.client.cpu + self.server_after.cpu.saturating_sub(self.server_before.cpu)
    }
}

/// For memory to be given back and delayed work to be done before the server is looked at.
const SETTLE: Duration = Duration::from_millis(500);

/// What a pair of processes is to do, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub(crate) system: System,
    pub(crate) workload: Workload,
    pub(crate) plan: Plan,
    /// Pins both processes.
    pub(crate) core: Option<usize>,
    /// Lies between them.
    pub(crate) path: Option<Path>,
}

/// Runs one pair.
pub(crate) fn sample(task: &Task) -> Result<Sample> {
    let Task { system, workload, plan, core, path } = task;
    let mut server = Process::start(*system, *workload, plan, *core, None)?;
    let mut address = server.ready()?;
    let link = path.map(|path| Link::to(address.parse()?, path)).transpose()?;
    if let Some(link) = &link {
        address = link.address().to_string();
    }
    let mut client = Process::start(*system, *workload, plan, *core, Some(&address))?;
    client.ready()?;

    let server_before = Usage::from_line(&server.ask("usage")?)?;
    let (busy, begin) = (machine::busy_time()?, Instant::now());
    let measured = Measured::from_line(&client.ask("go")?)?;
    let (busy, elapsed) = (machine::busy_time()?.saturating_sub(busy), begin.elapsed());
    if *workload == Workload::Idle {
        thread::sleep(SETTLE);
    }
    let server_after = Usage::from_line(&server.ask("usage")?)?;

    let mut sample =
        Sample { client: measured, bytes: plan.bulk_bytes(), server_before, server_after, others: 0.0 };
    let others = busy.saturating_sub(sample.cpu());
    sample.others = others.as_secs_f64() / (elapsed.as_secs_f64() * machine::cores() as f64);
    Ok(sample)
}

/// Says on what machine and under which settings everything below was measured.
pub(crate) fn machine_line() {
    println!(
        "{} cores, kernel {}, TCP congestion control {}; quinn cubic; TLS 1.3, X25519, AES-128-GCM, raw Ed25519 keys",
        machine::cores(),
        machine::kernel(),
        machine::tcp_congestion_control(),
    );
}
