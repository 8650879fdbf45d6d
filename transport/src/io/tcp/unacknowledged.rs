//! How much of what a connection sent its peer has not acknowledged, where the system tells.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod elsewhere;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) use elsewhere::Unacknowledged;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use linux::Unacknowledged;

/// What the system says of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), expect(dead_code, reason = "nobody tells"))]
pub(super) enum Outstanding {
    /// So many bytes are not acknowledged, the end of the direction counted as one.
    Bytes(u32),
    /// There is no such connection any more.
    Gone,
}
