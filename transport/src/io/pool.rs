use std::sync::Mutex;

use super::lock::Lock as _;

/// Buffers that streams borrow while they have something in them, so that an idle stream has none.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Mutex<Vec<Box<[u8]>>>,
}

impl Pool {
    /// A buffer of [`BUFFER_BYTES`], with anything in it.
    pub(crate) fn take(&self) -> Box<[u8]> {
        let free = self.free.hold().pop();
        free.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
    }

    pub(crate) fn give_back(&self, buffer: Box<[u8]>) {
        let mut free = self.free.hold();
        if free.len() < MAX_FREE {
            free.push(buffer);
        }
    }
}

/// Buffers for datagrams on their way to the kernel, one for each thread that sends at a time: a buffer a thread would stay
/// with each of many that are idle.
#[derive(Debug, Default)]
pub(crate) struct SendBuffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl SendBuffers {
    /// A buffer with anything in it, of any size.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.free.hold().pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut free = self.free.hold();
        if free.len() < MAX_FREE {
            free.push(buffer);
        }
    }
}

/// Four records (RFC 8446 §5.1) and room for what TLS has to say beside them: what one system call moves at most.
pub(crate) const BUFFER_BYTES: usize = 72 << 10;
/// As many threads as can be in a system call at a time on a large machine.
const MAX_FREE: usize = 32;
