//! Punching holes: two peers behind NATs send to each other at the same time, so that each NAT takes what comes in for
//! an answer to what went out.

mod check;
mod keys;
mod options;
mod plan;
mod spray;
mod tcp;
mod udp;

pub use keys::{KeyError, PunchKeys};
pub use options::PunchOptions;
pub use plan::Obstacle;
pub use tcp::{ConnectionId, Dial, TcpPunchEvent, TcpPuncher};
pub use udp::{PunchEvent, UdpPuncher};
