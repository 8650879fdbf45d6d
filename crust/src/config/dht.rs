//! The settings of the DHT.

use super::Config;

impl Config {
    /// Whether to be found, and find others, by nothing but a key, in the Mainline DHT of BitTorrent (BEP 5, BEP 44): nodes all over the internet
    /// are told where this peer is, at the start, when an address changes and each hour, and asked for peers of whom only the key is known.
    ///
    /// What they store is sealed, and stands under a key that only who knows this peer's can compute. Nodes see the address that we ask
    /// from, over IPv4 and UDP; see `SECURITY.md`. A peer that listens nowhere and has no introducer tells nothing of itself, nor does one that only this
    /// machine reaches. The access token is not told. Costs a thread, and another one and a UDP socket from a question until a minute after
    /// the last. Default: no.
    #[must_use]
    pub const fn dht(mut self, dht: bool) -> Self {
        self.dht = dht;
        self
    }

    /// The nodes by which the DHT is entered, as `HOST:PORT`; names are looked up. Default: the well-known ones of the public DHT.
    #[must_use]
    pub fn dht_bootstrap<N: ToString>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.dht_bootstrap = nodes.into_iter().map(|node| node.to_string()).collect();
        self
    }

    /// Whether the DHT is used.
    #[must_use]
    pub const fn uses_dht(&self) -> bool {
        self.dht
    }

    /// The nodes by which it is entered.
    #[must_use]
    pub fn dht_nodes(&self) -> &[String] {
        &self.dht_bootstrap
    }
}

/// Those of the public DHT.
pub(super) fn public_nodes() -> Vec<String> {
    mainline::DEFAULT_BOOTSTRAP_NODES.map(str::to_owned).into()
}
