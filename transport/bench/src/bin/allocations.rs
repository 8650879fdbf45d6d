//! Counts allocations; see README.md.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

// A program of its own, so that counting costs the other figures nothing.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> anyhow::Result<()> {
    transport_bench::allocations(|| {
        let stats = ALLOCATOR.stats();
        stats.allocations + stats.reallocations
    })
}
