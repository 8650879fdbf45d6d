#![doc = include_str!("../README.md")]

mod cases;
mod nat;
#[cfg(target_os = "linux")]
mod rules;

#[cfg(target_os = "linux")]
mod lab;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod service;
#[cfg(target_os = "linux")]
mod topology;
#[cfg(target_os = "linux")]
mod wire;

pub use cases::{run_cases, run_cases_side_by_side};
pub use nat::{Blocks, Nat, ParseNatError, PortChoice, Rule, Unsolicited, parse_nats};

#[cfg(target_os = "linux")]
pub use lab::{Lab, LabError, Node};
#[cfg(target_os = "linux")]
pub use service::{Coturn, Igd, Miniupnpd, Process};
#[cfg(target_os = "linux")]
pub use topology::{Link, Site, Topology};
