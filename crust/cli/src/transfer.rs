//! Files and folders over one stream, resumed where it stopped, verified by hash.
//!
//! What is public here is the pure protocol, so that it can be fuzzed; `docs/wire.md` draws its bytes.

mod error;
mod fetch;
mod protocol;
mod serve;
mod source;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use error::{SourceError, TransferError};
pub(crate) use fetch::fetch;
pub use protocol::*;
pub(crate) use serve::{listen_to, serve};
pub(crate) use source::Source;
pub(crate) use target::Target;

/// What the receiver asks for in its preface.
pub(crate) fn label() -> crust::ProtocolLabel {
    crust::ProtocolLabel::new("crust-send/1").expect("it is short enough")
}
