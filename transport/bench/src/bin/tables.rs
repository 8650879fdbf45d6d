//! Prints tables of figures, ours beside the references; see README.md.

fn main() -> anyhow::Result<()> {
    transport_bench::run(std::env::args().skip(1).collect())
}
