//! Files and the clock. Nothing is decided here.

pub(crate) mod clock;
pub(crate) mod identity_file;
pub(crate) mod lan;
