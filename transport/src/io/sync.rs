//! What the crank and its slots wait and wake with. `transport/model` puts other things in its place, whose threads take turns in
//! every order that a scheduler can think of.

pub(crate) use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, atomic},
    thread,
};

pub(crate) use mio::Waker;

/// What a leader that waits in a receive is woken by.
pub(crate) use super::udp::UdpSocket as Bell;
