use std::io::{self, BufRead, ErrorKind};

/// Reads all lines of bounded length, and at last the end, and tells each until nobody listens. Blocks: a thread of its own does this, and it
/// may sit in a read that nobody can end.
pub(crate) fn read_lines(input: impl BufRead, limit: usize, tell: impl Fn(Option<Line>) -> bool) {
    for line in Lines::new(input, limit) {
        let Ok(line) = line.inspect_err(|error| eprintln!("cannot read further: {error}")) else { break };
        if !tell(Some(line)) {
            return;
        }
    }
    tell(None);
}

/// Lines of bounded length.
#[derive(Debug)]
struct Lines<R> {
    source: R,
    limit: usize,
}

/// One line, or what stood in its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// Longer than the limit, and skipped.
    TooLong,
}

impl<R: BufRead> Lines<R> {
    const fn new(source: R, limit: usize) -> Self {
        Self { source, limit }
    }

    fn read_line(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let mut too_long = false;
        loop {
            let buffer = match self.source.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            };
            if buffer.is_empty() {
                // A last line without an end was cut off, and is none.
                return Ok(None);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            too_long |= line.len() + part.len() > self.limit;
            if too_long {
                line.clear();
            } else {
                line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.source.consume(used);
            if end.is_some() {
                return Ok(Some(if too_long { Line::TooLong } else { Line::Whole(line) }));
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_line().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_is_read() {
        for capacity in [1, 3, 64] {
            let text: &[u8] = b"12345\n123456\n\n1\ncut off";
            let lines: Vec<Line> =
                Lines::new(BufReader::with_capacity(capacity, text), 5).map(Result::unwrap).collect();
            let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
            assert_eq!(lines, [whole("12345"), Line::TooLong, whole(""), whole("1")]);
        }
    }
}
