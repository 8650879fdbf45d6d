//! A service that does nothing but be there, for its memory and threads to be looked at. A program of its own, as the
//! references would be resident beside it in the other.

fn main() -> anyhow::Result<()> {
    transport_bench::service(&std::env::args().skip(1).collect::<Vec<_>>())
}
