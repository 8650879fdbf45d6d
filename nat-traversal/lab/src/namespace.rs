//! Network namespaces by `ip`, named after the process that made them, so that those of the dead can be swept away.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::LabError;

/// The common beginning of the names of one laboratory.
pub(crate) fn unique_prefix() -> Result<String, LabError> {
    static SWEEP: Once = Once::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    SWEEP.call_once(sweep);
    let pid = std::process::id();
    let start =
        start_time(pid).ok_or_else(|| LabError::new("/proc does not tell when this process began"))?;
    Ok(format!("{FAMILY}-{pid}-{start}-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// Removes what processes have left that are gone.
fn sweep() {
    let mut orphans = Vec::new();
    for directory in [NAMES, FILES] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut words = name.split('-');
            let orphan = words.next() == Some(FAMILY)
                && match (words.next().map(str::parse), words.next().map(str::parse)) {
                    (Some(Ok(pid)), Some(Ok(start))) => start_time(pid) != Some(start),
                    _ => false,
                };
            if orphan && directory == NAMES {
                orphans.push(name);
            } else if orphan {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }
    if !orphans.is_empty() {
        delete(&orphans);
    }
}

/// When a process began, in ticks since the system did. With its number it is a name that is not used again.
fn start_time(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, which may have spaces and brackets; the start is the 22nd.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A folder for the files of one laboratory.
pub(crate) fn folder(prefix: &str) -> io::Result<PathBuf> {
    let folder = Path::new(FILES).join(prefix);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Deletes namespaces and ends the processes in them.
pub(crate) fn delete(names: &[String]) {
    let identities: Vec<PathBuf> = names
        .iter()
        .filter_map(|name| fs::metadata(Path::new(NAMES).join(name)).ok())
        .map(|metadata| PathBuf::from(format!("net:[{}]", metadata.ino())))
        .collect();
    // Their names first, so that nobody enters any more.
    let lines: Vec<String> = names.iter().map(|name| format!("netns delete {name}")).collect();
    if let Err(error) = ip(None, &lines) {
        eprintln!("{error}");
    }
    // What was killed may have started others meanwhile.
    while end_processes(&identities) {}
}

/// Ends all processes in namespaces, but for this one; tells whether there were any.
fn end_processes(identities: &[PathBuf]) -> bool {
    let mut any = false;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let inside = fs::read_link(entry.path().join("ns/net")).is_ok_and(|net| identities.contains(&net));
        if inside && u32::try_from(pid) != Ok(std::process::id()) {
            any |= kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok();
        }
    }
    any
}

/// Runs `work` on a thread that is inside a namespace.
pub(crate) fn enter<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = Path::new(NAMES).join(name);
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter the namespaces it made");
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Carries out lines of `ip`, in a namespace or outside of all.
pub(crate) fn ip(namespace: Option<&str>, lines: &[String]) -> Result<(), LabError> {
    let mut command = Command::new("ip");
    command.args(namespace.iter().flat_map(|name| ["-n", name])).args(["-batch", "-"]);
    run(&mut command, &lines.join("\n")).map(drop)
}

/// Runs a program to its end with this input; an end that is none too good is an error with what it said.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<Output, LabError> {
    let name = format!("{command:?}").replace('"', "");
    let failed = |error: io::Error| LabError::new(format!("{name}: {error}"));
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().map_err(failed)?;
    // The rules of a router are longer than a pipe, but these programs read them whole before they say anything.
    let written = child.stdin.take().expect("piped above").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() && written.is_ok() {
        return Ok(output);
    }
    Err(LabError::new(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Where `ip` has its namespaces.
const NAMES: &str = "/run/netns";
const FILES: &str = "/run/nat-lab";
const FAMILY: &str = "natlab";
