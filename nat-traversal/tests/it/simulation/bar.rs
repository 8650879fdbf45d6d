//! A row of a table: what many runs came to, what is asked of them, and a mark where they fall short.

use std::time::Duration;

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) share: f64,
    pub(crate) p50: Option<Duration>,
    pub(crate) p95: Option<Duration>,
    pub(crate) worst: Option<Duration>,
}

impl Bar {
    pub(crate) const fn share(share: f64) -> Self {
        Self { share, p50: None, p95: None, worst: None }
    }

    pub(crate) const fn p50(self, ms: u64) -> Self {
        Self { p50: Some(Duration::from_millis(ms)), ..self }
    }

    pub(crate) const fn p95(self, ms: u64) -> Self {
        Self { p95: Some(Duration::from_millis(ms)), ..self }
    }

    pub(crate) const fn worst(self, ms: u64) -> Self {
        Self { worst: Some(Duration::from_millis(ms)), ..self }
    }

    fn times(&self) -> [(&'static str, f64, Option<Duration>); 3] {
        [("p50", 0.50, self.p50), ("p95", 0.95, self.p95), ("worst", 1.0, self.worst)]
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "≥ {} %", 100.0 * self.share)?;
        for (name, _, limit) in self.times() {
            if let Some(limit) = limit {
                write!(f, ", {name} ≤ {}", limit.as_secs_f64())?;
            }
        }
        Ok(())
    }
}

pub(crate) fn print_head() {
    println!(
        "{:<58}{:>6} {:>7} {:>7} {:>7} {:>7}   asked",
        "in memory, s after both have the info", "runs", "direct", "p50", "p95", "worst"
    );
}

/// Prints a row; whether it is as asked. `None` for a run that was not direct.
pub(crate) fn print_row(name: &str, outcomes: &[Option<Duration>], bar: Bar) -> bool {
    let mut times: Vec<Duration> = outcomes.iter().copied().flatten().collect();
    times.sort_unstable();
    let direct = times.len() as f64 / outcomes.len() as f64;
    let at = |share: f64| {
        let rank = (times.len() as f64 * share).ceil() as usize;
        times.get(rank.max(1) - 1).copied()
    };
    print!("{name:<58}{:>6} {:>6.2}%", outcomes.len(), 100.0 * direct);
    let mut missed = Vec::new();
    if direct < bar.share {
        missed.push("direct");
    }
    for (name, share, limit) in bar.times() {
        match at(share) {
            Some(time) => {
                print!(" {:>7.3}", time.as_secs_f64());
                missed.extend(limit.filter(|limit| time > *limit).map(|_| name));
            }
            None => print!(" {:>7}", "–"),
        }
    }
    let mark = if missed.is_empty() { "ok".to_owned() } else { format!("!! missed: {}", missed.join(", ")) };
    println!("   {bar}  {mark}");
    missed.is_empty()
}
