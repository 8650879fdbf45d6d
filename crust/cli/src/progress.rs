use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::events::{Event, Output};

/// How far a transfer is: a bar where someone looks, an event now and then with `--json`, else nothing.
pub(crate) struct Progress {
    output: Option<Output>,
    bar: ProgressBar,
    done_bytes: u64,
    total_bytes: u64,
    told: Option<Instant>,
}

impl Progress {
    /// Shows itself as `output` wants.
    pub(crate) fn new(output: Output) -> Self {
        Self { output: Some(output), bar: ProgressBar::hidden(), done_bytes: 0, total_bytes: 0, told: None }
    }

    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self { output: None, bar: ProgressBar::hidden(), done_bytes: 0, total_bytes: 0, told: None }
    }

    /// The size of the whole is known.
    pub(crate) fn begin(&mut self, total_bytes: u64) {
        self.total_bytes = total_bytes;
        if self.output.as_ref().is_some_and(Output::shows_bars) {
            // Draws to standard error, and hides itself where that is no terminal.
            self.bar = ProgressBar::new(total_bytes);
            self.bar.set_style(
                ProgressStyle::with_template(TEMPLATE).expect("the template is right").progress_chars("=> "),
            );
        }
    }

    /// So many bytes were there already: they count, but tell nothing about the rate.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.advance(bytes);
        if bytes > 0 {
            self.bar.reset_eta();
        }
    }

    /// So many bytes more have gone or come.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        self.bar.inc(bytes);
        if self.told.is_none_or(|told| told.elapsed() >= PERIOD) {
            self.tell();
        }
    }

    /// The transfer is over.
    pub(crate) fn end(&mut self) {
        self.tell();
        self.bar.finish_and_clear();
    }

    fn tell(&mut self) {
        if let Some(output) = &self.output {
            output.event(&Event::Progress { bytes: self.done_bytes, total_bytes: self.total_bytes });
        }
        self.told = Some(Instant::now());
    }
}

const TEMPLATE: &str = "[{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
/// Often enough to follow, seldom enough to cost nothing.
const PERIOD: Duration = Duration::from_millis(500);
