//! How the harness speaks with its two processes: one line there, one line back.
//!
//! A server prints `ready ADDRESS`, then answers each `usage` with what it has used. A client prints `ready` once it
//! is connected and warm, then answers each `go` with what it measured. Both end with their standard input.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::machine;
use crate::plan::{Plan, System, Workload};

/// How long any answer may take: ten thousand dials of the slowest system are well below it.
const PATIENCE: Duration = Duration::from_secs(120);

/// One of the two processes, as the harness holds it. Dropping it ends the process.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// `cargo run` builds the one program that it runs, and the service is another.
fn build_service(program: &Path) -> Result<()> {
    if program.exists() {
        return Ok(());
    }
    let cargo =
        std::env::var_os("CARGO").context("cargo build --release in transport/bench makes `service`")?;
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let arguments =
        ["build", "--release", "--quiet", "--locked", "--bin", "service", "--manifest-path", manifest];
    let status = Command::new(cargo).args(arguments).status()?;
    ensure!(status.success(), "the program `service` does not build");
    Ok(())
}

impl Process {
    /// Starts this same program as a peer; `address` is what a server printed, and makes it a client.
    pub(crate) fn start(
        system: System,
        workload: Workload,
        plan: &Plan,
        core: Option<usize>,
        address: Option<&str>,
    ) -> Result<Self> {
        let mut program = std::env::current_exe()?;
        if address.is_none() && matches!(system, System::CrustService | System::CrustServiceCaller) {
            // Its memory is to be its own: see there.
            program.set_file_name("service");
            build_service(&program)?;
        }
        let mut command = Command::new(program);
        command.args(arguments(system, workload, plan, core, address));
        Self::spawn(command)
    }

    /// The same with every system call counted, in a file that is complete after [`Process::finish`].
    pub(crate) fn start_traced(
        system: System,
        workload: Workload,
        plan: &Plan,
        address: Option<&str>,
        file: &Path,
    ) -> Result<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-c", "-U", "name,calls", "-o"]).arg(file).arg(std::env::current_exe()?);
        command.args(arguments(system, workload, plan, None, address));
        Self::spawn(command).context("cannot run strace")
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().context("stdin is piped")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { child, stdin: Some(stdin), lines })
    }

    /// Ends its standard input and waits for it to end by itself.
    pub(crate) fn finish(mut self) -> Result<()> {
        drop(self.stdin.take());
        self.child.wait()?;
        Ok(())
    }

    /// Sends one line and waits for the answer.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.stdin.as_mut().context("only finish takes it")?, "{line}")?;
        self.answer()
    }

    /// Waits for the `ready` line and gives what follows the word.
    pub(crate) fn ready(&mut self) -> Result<String> {
        let line = self.answer()?;
        let Some(rest) = line.strip_prefix("ready") else { bail!("a peer said {line:?} instead of ready") };
        Ok(rest.trim().to_owned())
    }

    fn answer(&self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).context("a peer process ended or hung")
    }
}

fn arguments(
    system: System,
    workload: Workload,
    plan: &Plan,
    core: Option<usize>,
    address: Option<&str>,
) -> Vec<String> {
    let mut words = vec!["peer".into(), system.name().into(), workload.name().into()];
    words.push(core.map_or("-".into(), |core| core.to_string()));
    words.extend(plan.to_words());
    words.extend(address.map(str::to_owned));
    words
}

impl Drop for Process {
    fn drop(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used since it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) resident_kibibytes: u64,
    pub(crate) threads: u64,
}

/// What a client measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
    pub(crate) cpu: Duration,
}

impl Usage {
    /// Of this process, now.
    pub(crate) fn now() -> Result<Self> {
        Ok(Self {
            cpu: machine::cpu_time(),
            resident_kibibytes: machine::resident_kibibytes()?,
            threads: machine::threads()?,
        })
    }

    pub(crate) fn to_line(self) -> String {
        format!("{} {} {}", self.cpu.as_nanos(), self.resident_kibibytes, self.threads)
    }

    pub(crate) fn from_line(line: &str) -> Result<Self> {
        let [cpu, resident_kibibytes, threads] = numbers(line)?;
        Ok(Self { cpu: Duration::from_nanos(cpu), resident_kibibytes, threads })
    }
}

impl Measured {
    pub(crate) fn to_line(self) -> String {
        let times = [self.elapsed, self.median, self.p99, self.cpu].map(|time| time.as_nanos().to_string());
        format!("{} {}", self.operations, times.join(" "))
    }

    pub(crate) fn from_line(line: &str) -> Result<Self> {
        let [operations, elapsed, median, p99, cpu] = numbers(line)?;
        let [elapsed, median, p99, cpu] = [elapsed, median, p99, cpu].map(Duration::from_nanos);
        Ok(Self { operations, elapsed, median, p99, cpu })
    }
}

fn numbers<const N: usize>(line: &str) -> Result<[u64; N]> {
    let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
    numbers.ok().and_then(|numbers| numbers.try_into().ok()).with_context(|| format!("a peer said {line:?}"))
}
