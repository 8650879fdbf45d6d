//! The command `crust`.
fn main() {}
