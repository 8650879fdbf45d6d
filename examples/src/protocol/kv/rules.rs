use std::time::Duration;

use super::Route;

/// How a node treats queries, its own and others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whom to ask.
    pub route: Route,
    /// How long a query lives at each node.
    pub lifetime: Duration,
    /// How long values that pass by are kept; zero keeps none.
    pub cache_for: Duration,
    /// The most hops that are granted to anybody.
    pub max_hops: u8,
    /// The most peers that are asked at once for anybody.
    pub max_fan_out: u8,
    /// Whether to tell the asker that there is nothing where it wants the answer straight home, which takes a stream to it for that. If
    /// nobody does, it knows at the end of the lifetime only.
    pub tell_not_found: bool,
    /// Whether to hide where a query began from those who are asked: one hop in two, drawn by lot, does not count, and a query tells who
    /// had it last and not who had it before. Whoever gets it from its origin then sees nothing that a hop further might not have sent.
    /// Nor does such a node tell who its neighbours are, and more of them get a query by several ways.
    pub hide_origin: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            route: Route::Kademlia,
            lifetime: Duration::from_secs(2),
            cache_for: Duration::ZERO,
            max_hops: 8,
            max_fan_out: 8,
            tell_not_found: true,
            hide_origin: false,
        }
    }
}
