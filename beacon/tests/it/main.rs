//! Tests over real sockets on loopback, and of the protocol in virtual time.

mod lan;
mod loopback;
#[path = "../rfc.rs"]
mod rfc;
mod simulation;
