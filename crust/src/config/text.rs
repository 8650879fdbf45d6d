use std::time::Duration;

/// Reads a duration as configuration writes it: a whole number and `ms`, `s`, `m` or `h`.
///
/// ```
/// assert_eq!(crust::parse_duration("250ms")?.as_millis(), 250);
/// assert!(crust::parse_duration("10").is_err());
/// # Ok::<(), crust::ParseDurationError>(())
/// ```
///
/// # Errors
///
/// [`ParseDurationError`] when the text is no such duration, or one of more than a year.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| ParseDurationError)?;
    let unit_millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(ParseDurationError),
    };
    let millis = number.checked_mul(unit_millis).filter(|&millis| millis <= MAX_MILLIS);
    millis.map(Duration::from_millis).ok_or(ParseDurationError)
}

/// Writes a duration in the largest unit that loses nothing.
pub(super) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// A text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a whole number and ms, s, m or h, such as 10s")]
pub struct ParseDurationError;

/// A year: adding it to any clock cannot overflow, and no wait is meant to be longer.
const MAX_MILLIS: u64 = 365 * 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["0s", "1ms", "999ms", "10s", "90s", "2m", "3h", "8760h"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "s", "10", "-1s", "1.5s", "10 s", "99999999999999999999s", "8761h", "1d"] {
            assert_eq!(parse_duration(text), Err(ParseDurationError), "{text}");
        }
    }
}
