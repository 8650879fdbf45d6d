use ring::digest;

/// Where all of a machine's randomness comes from: 32 bytes, secret unless the run is a test.
#[derive(Clone)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A further seed, independent of this one to anyone who knows only one of them.
    #[must_use]
    pub fn derive(&self, label: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"derive");
        context.update(&self.0);
        context.update(label.as_bytes());
        Self(finish(context))
    }
}

impl From<u64> for Seed {
    /// A seed for repeatable tests. It is guessable, so never use one on a real network.
    fn from(number: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Self(bytes)
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A generator that each machine owns: SHA-256 over the seed and a counter, so that who sees some draws learns none of
/// the others. It is slow beside others of its kind, and machines draw little.
#[derive(Debug, Clone)]
pub struct Random {
    seed: Seed,
    blocks: u64,
}

impl Random {
    /// Begins the sequence of this seed.
    #[must_use]
    pub const fn new(seed: Seed) -> Self {
        Self { seed, blocks: 0 }
    }

    /// Draws up to 32 bytes.
    pub fn bytes<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        const { assert!(LENGTH <= 32) };
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.seed.0);
        context.update(&self.blocks.to_be_bytes());
        self.blocks += 1;
        let block: [u8; 32] = finish(context);
        let mut bytes = [0; LENGTH];
        bytes.copy_from_slice(&block[..LENGTH]);
        bytes
    }

    /// Draws a number below `end`, each equally likely but for a bias of at most `end` in 2⁶⁴.
    ///
    /// # Panics
    ///
    /// If `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        u64::from_be_bytes(self.bytes()) % end
    }
}

fn finish(context: digest::Context) -> [u8; 32] {
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_sequence_and_another_does_not() {
        let draw = |seed: Seed| {
            let mut random = Random::new(seed);
            [random.below(1 << 40), random.below(1 << 40)]
        };
        assert_eq!(draw(Seed::from(7)), draw(Seed::from(7)));
        assert_ne!(draw(Seed::from(7)), draw(Seed::from(8)));
        assert_ne!(draw(Seed::from(7)), draw(Seed::from(7).derive("other")));
        let [first, second] = draw(Seed::from(7));
        assert_ne!(first, second);
    }

    #[test]
    fn a_seed_is_not_printed() {
        assert_eq!(format!("{:?}", Seed::from(7)), "Seed(..)");
    }
}
