use std::{collections::BTreeMap, iter::Sum};

use serde::{Deserialize, Serialize};

/// Times in microseconds, each known to 1 part in 16: small however many there are, and two of them add up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u32, u64)>", into = "Vec<(u32, u64)>")]
pub struct Histogram {
    /// How many fell into each bucket.
    buckets: BTreeMap<u32, u64>,
}

impl Histogram {
    /// Counts a time.
    pub fn add(&mut self, micros: u64) {
        *self.buckets.entry(bucket(micros)).or_default() += 1;
    }

    /// The time that this share of all does not exceed, from 0 to 1; 0 if there is none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (share * self.buckets.values().sum::<u64>() as f64).ceil() as u64;
        let mut seen = 0;
        let reached = self.buckets.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        reached.map_or(0, |(bucket, _)| most_of(*bucket))
    }
}

impl From<Vec<(u32, u64)>> for Histogram {
    fn from(buckets: Vec<(u32, u64)>) -> Self {
        Self { buckets: buckets.into_iter().collect() }
    }
}

impl From<Histogram> for Vec<(u32, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.buckets.into_iter().collect()
    }
}

impl Sum for Histogram {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            for (bucket, count) in one.buckets {
                *sum.buckets.entry(bucket).or_default() += count;
            }
            sum
        })
    }
}

/// Below 16 each number has a bucket; above, each power of two has 16.
fn bucket(micros: u64) -> u32 {
    let power = micros.max(1).ilog2().saturating_sub(4);
    16 * power + u32::try_from(micros >> power).expect("below 32")
}

/// The greatest number that falls into a bucket.
fn most_of(bucket: u32) -> u64 {
    let power = (bucket / 16).saturating_sub(1);
    let mantissa = u64::from(bucket - 16 * power);
    ((mantissa + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_known_to_one_part_in_sixteen() {
        for micros in (0..5_000).chain((0..59).map(|power| 1 << power)).chain([u64::MAX >> 1]) {
            let most = most_of(bucket(micros));
            assert!(micros <= most && most - micros <= micros / 16, "{micros}: {most}");
            assert!(bucket(micros) <= bucket(micros + 1));
        }
    }

    #[test]
    fn quantiles_are_those_of_all_that_was_counted() {
        let half = |from: u64| {
            let mut histogram = Histogram::default();
            (from..from + 50).for_each(|micros| histogram.add(micros % 16));
            histogram
        };
        let all: Histogram = [half(0), half(50)].into_iter().sum();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| all.quantile(share)), [0, 7, 15, 15]);
        assert_eq!(Histogram::default().quantile(0.5), 0);
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), all);
    }
}
