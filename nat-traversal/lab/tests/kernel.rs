//! The laboratory measured from inside: is each NAT what its description says? Linux, root, `ip`, `nft`, `ethtool`.
//!
//! Where no laboratory can be built it prints `NOT RUN: …` and ends well; the gate does not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("NOT RUN: nat-lab: network namespaces are Linux's");
}

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}
