//! Tests over real sockets on loopback, and of the protocol in virtual time.

mod loopback;
#[path = "../rfc.rs"]
mod rfc;
