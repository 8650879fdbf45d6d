//! The whole service in memory and in virtual time: services, introducers, STUN servers and a relay on
//! [`nat_traversal::testing::Net`], over nodes of [`transport::testing`].
//!
//! A service here is the machines that a service is made of: attachments, the switchboard, knocks and sealed offers, the plan of
//! a call, the schedule by which relays are left. What stands between them, threads in a service, is a few hundred lines here.
//! A run is decided by its seed; one that ends otherwise than declared prints the command that replays it.
#![allow(clippy::unwrap_used, reason = "for tests")]

mod answers;
mod attaching;
mod calls;
mod detours;
mod faults;
mod figures;
mod hosting;
mod matrix;
mod moving;
mod ringing;
mod service;
mod together;
mod world;
