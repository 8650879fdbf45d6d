//! Connects.
fn main() {}
