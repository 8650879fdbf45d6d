//! Tests over real sockets on loopback, and of the protocol in virtual time.

mod agent;
mod cost;
mod figures;
mod lab;
mod lan;
mod loopback;
mod namespaces;
mod private;
#[path = "../rfc.rs"]
mod rfc;
mod simulation;
