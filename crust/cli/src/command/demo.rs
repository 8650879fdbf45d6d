use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, bounded};
use crust::{AccessToken, Contact};
use serde_json::Value;

use crate::{
    events::{Event, Output},
    failure::Failure,
};

/// Two peers as processes of their own, on loopback: one finds the other by its beacon, they connect and exchange a file,
/// and the file is compared.
pub(super) fn run(output: Output) -> Result<(), Failure> {
    let started = Instant::now();
    let deadline = started + DEADLINE;
    let folder = Scratch::new()?;
    let file = folder.path.join("demo.bin");
    let hash =
        write_file(&file).map_err(|error| failed(&format!("cannot write {}: {error}", file.display())))?;
    output.print(&format!("a file of {} MiB is ready", FILE_BYTES >> 20));
    for scheme in SCHEMES {
        configure(&folder.path, 0).map_err(|error| failed(&error.to_string()))?;
        exchange(scheme, &folder.path, &file, hash, deadline, output)?;
    }
    let total = FILE_BYTES * SCHEMES.len() as u64;
    output.event(&Event::done(total, started.elapsed()));
    output.print(&format!("done in {:.1} s", started.elapsed().as_secs_f64()));
    Ok(())
}

fn exchange(
    scheme: &str,
    folder: &Path,
    file: &Path,
    hash: blake3::Hash,
    deadline: Instant,
    output: Output,
) -> Result<(), Failure> {
    let into = folder.join(scheme);
    let mut sender = Peer::start(
        folder,
        &["send", "--only", scheme, "--listen", &format!("{scheme}://127.0.0.1:0"), "--json"],
        file,
    )?;
    let listening = sender.event("listening", deadline)?;
    let contact = key_and_token(&listening)?;
    output.print(&format!("{scheme}: one peer sends, as {}", listening["id"].as_str().unwrap_or("?")));
    let port = listening["lan_port"].as_u64().ok_or_else(|| failed("the sender is not announced"))?;
    configure(folder, port).map_err(|error| failed(&error.to_string()))?;
    let mut receiver = Peer::start(folder, &["receive", "--only", scheme, "--json", &contact, "-o"], &into)?;
    receiver.event("discovered", deadline)?;
    let connected = receiver.event("connected", deadline)?;
    let done = receiver.event("done", deadline)?;
    receiver.end(deadline)?;
    sender.end(deadline)?;
    let received = hash_file(&into.join("demo.bin")).map_err(|error| failed(&error.to_string()))?;
    if received != hash {
        return Err(failed(&format!("{scheme}: the file that arrived is another one")));
    }
    let milliseconds = |event: &Value| event["elapsed_ms"].as_f64().unwrap_or(f64::NAN);
    let seconds = milliseconds(&done) / 1e3;
    #[expect(clippy::cast_precision_loss, reason = "a rate is not exact to the byte")]
    let rate = FILE_BYTES as f64 / f64::from(1 << 20) / seconds;
    output.print(&format!(
        "{scheme}: another found it by its beacon and connected in {:.1} ms, and received the file in {seconds:.2} s, {rate:.0} MiB/s, on disk and verified",
        milliseconds(&connected),
    ));
    output.event(&Event::done(FILE_BYTES, Duration::from_secs_f64(seconds.max(0.0))));
    Ok(())
}

/// The sender's contact without any address: where it is, a beacon must say.
fn key_and_token(listening: &Value) -> Result<String, Failure> {
    let contact = listening["contact"].as_str().and_then(|text| text.parse::<Contact>().ok());
    let contact = contact.ok_or_else(|| failed("the sender printed no contact"))?;
    let token = contact.token().cloned().ok_or_else(|| failed("the sender asks for no token"))?;
    Ok(Contact::new(contact.public_key()).access_token(token).to_string())
}

/// Has the processes started from now on use this port for beacons; 0 lets the system choose one.
fn configure(folder: &Path, lan_port: u64) -> io::Result<()> {
    fs::write(folder.join("config.toml"), format!("lan = \"loopback\"\nlan_port = {lan_port}\n"))
}

/// A process of this very program. It does not outlive us.
struct Peer {
    process: Child,
    name: String,
    lines: Receiver<String>,
}

impl Peer {
    fn start(folder: &Path, arguments: &[&str], last: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::of("system", &error))?;
        let name = arguments.first().copied().unwrap_or_default().to_owned();
        let mut process = Command::new(program)
            .args(arguments)
            .arg(last)
            // The user's own key and configuration stay out of it.
            .args(["--config".as_ref(), folder.join("config.toml").as_os_str()])
            .args(["--key".as_ref(), folder.join(format!("{name}.pem")).as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| Failure::of("system", &error))?;
        let stdout = process.stdout.take().expect("it is piped");
        let (give, lines) = bounded(LINES);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if give.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, name, lines })
    }

    /// Waits for one kind of event.
    fn event(&mut self, kind: &str, deadline: Instant) -> Result<Value, Failure> {
        loop {
            let line = self
                .lines
                .recv_deadline(deadline)
                .map_err(|_| failed(&format!("`crust {}` ended or hung before `{kind}`", self.name)))?;
            let event: Value = serde_json::from_str(&line).map_err(|error| failed(&error.to_string()))?;
            match event["event"].as_str() {
                Some(found) if found == kind => return Ok(event),
                Some("error") => {
                    let message = event["message"].as_str().unwrap_or_default();
                    return Err(failed(&format!("`crust {}`: {message}", self.name)));
                }
                _ => {}
            }
        }
    }

    fn end(&mut self, deadline: Instant) -> Result<(), Failure> {
        // Its standard output must not fill up while we wait.
        while self.lines.recv_deadline(deadline).is_ok() {}
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(failed(&format!("`crust {}` ended with {status}", self.name)));
                }
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(None) => return Err(failed(&format!("`crust {}` did not end", self.name))),
                Err(error) => return Err(Failure::of("system", &error)),
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // It may have ended in between; either way it is gone afterwards.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// A folder that is gone afterwards.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("crust-demo-{}", AccessToken::generate()));
        fs::create_dir(&path).map_err(|error| failed(&format!("cannot make {}: {error}", path.display())))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Bytes that no compression could make smaller, the same in every run.
fn write_file(path: &Path) -> io::Result<blake3::Hash> {
    let mut file = File::create_new(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = blake3::Hasher::new().update(b"crust demo").finalize_xof();
    let mut piece = vec![0; PIECE_BYTES];
    for _ in 0..FILE_BYTES / PIECE_BYTES as u64 {
        bytes.fill(&mut piece);
        hasher.update(&piece);
        file.write_all(&piece)?;
    }
    Ok(hasher.finalize())
}

fn hash_file(path: &Path) -> io::Result<blake3::Hash> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize()),
            length => {
                hasher.update(&piece[..length]);
            }
        }
    }
}

fn failed(message: &str) -> Failure {
    Failure::new("demo", message)
}

const SCHEMES: [&str; 2] = ["tcp", "quic"];
const FILE_BYTES: u64 = 64 << 20;
const PIECE_BYTES: usize = 1 << 20;
/// A slow machine takes three seconds.
const DEADLINE: Duration = Duration::from_secs(20);
/// More than a peer prints.
const LINES: usize = 256;
const POLL: Duration = Duration::from_millis(5);
