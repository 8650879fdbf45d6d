//! Tells when interfaces or addresses may have changed.
//!
//! Everywhere the list is read again from time to time and compared. On Linux the kernel also says so at once, by a
//! netlink socket; what it says is not read, only that it said something.

#[cfg(target_os = "linux")]
pub(crate) use linux::Changes;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::Changes;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

    /// A netlink socket subscribed to changes of links and addresses.
    #[derive(Debug)]
    pub(crate) struct Changes {
        socket: Option<OwnedFd>,
    }

    impl Changes {
        /// Subscribes. Where that is refused (a sandbox), reading the list from time to time remains.
        pub(crate) fn subscribe(registry: &Registry, token: Token) -> Self {
            let mut changes = Self::open();
            if let Some(socket) = &changes.socket
                && let Err(error) =
                    registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)
            {
                told(&error);
                changes.socket = None;
            }
            changes
        }

        /// The same, for somebody else's poll.
        pub(crate) fn open() -> Self {
            Self { socket: open().inspect_err(told).ok() }
        }

        pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
            self.socket.as_ref().map(OwnedFd::as_fd)
        }

        /// Takes all that the kernel has said, so that the next word wakes again; tells whether it said something.
        pub(crate) fn drain(&self) -> bool {
            let Some(socket) = &self.socket else { return false };
            let mut buffer = [0_u8; 4096];
            let mut said = false;
            // An overrun is an error once and means that more was said than was kept: all the same here. The count
            // only guards against a kernel that talks faster than we read.
            for _ in 0..MAX_READS {
                match recv(socket, &mut buffer, RecvFlags::empty()) {
                    Err(error) if error == rustix::io::Errno::AGAIN => return said,
                    Ok(_) | Err(_) => said = true,
                }
            }
            said
        }

        /// How often to read the list although nothing was said.
        pub(crate) const fn reading_pause(&self) -> Duration {
            if self.socket.is_some() { Duration::from_secs(5) } else { Duration::from_secs(1) }
        }
    }

    fn told(error: &io::Error) {
        tracing::debug!(%error, "no word of interface changes; the list is read every second instead");
    }

    fn open() -> io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // Protocol 0 of this family is `NETLINK_ROUTE`.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, LINK_AND_ADDRESS_CHANGES))?;
        Ok(socket)
    }

    /// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
    const LINK_AND_ADDRESS_CHANGES: u32 = 0x1 | 0x10 | 0x100;

    const MAX_READS: usize = 1000;
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::time::Duration;

    use mio::{Registry, Token};

    /// Nothing is said here; the list is read every second.
    #[derive(Debug)]
    pub(crate) struct Changes;

    impl Changes {
        pub(crate) fn subscribe(_registry: &Registry, _token: Token) -> Self {
            Self
        }

        pub(crate) fn open() -> Self {
            Self
        }

        #[cfg(unix)]
        #[expect(clippy::unused_self, reason = "as on Linux")]
        pub(crate) fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            None
        }

        #[expect(clippy::unused_self, reason = "as on Linux")]
        pub(crate) fn drain(&self) -> bool {
            false
        }

        pub(crate) const fn reading_pause(&self) -> Duration {
            Duration::from_secs(1)
        }
    }
}
