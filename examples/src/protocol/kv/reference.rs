use std::{fmt::Debug, marker::PhantomData, ops::Deref, rc::Rc, sync::Arc};

/// What services share instead of copying it: records and peers.
pub trait Content: Clone + Debug + PartialEq + Send + Sync + 'static {}

impl<T: Clone + Debug + PartialEq + Send + Sync + 'static> Content for T {}

/// What stands in an [`Item`](super::Item) for contents.
pub trait Handles: Clone + Debug + PartialEq + 'static {
    /// A handle.
    type To<T: Content>: Clone + Debug + PartialEq + Deref<Target = T>;
}

/// How services hold what they share, and in which form it goes from one thread to another. Services are written once, for any.
pub trait Reference: Handles {
    /// What can go to another thread.
    type Sent<T: Content>: Clone + Debug + PartialEq + Deref<Target = T> + Send;

    /// A first handle.
    fn new<T: Content>(content: T) -> Self::To<T>;

    /// Makes a handle fit to leave its thread.
    fn pack<T: Content>(handle: Self::To<T>) -> Self::Sent<T>;

    /// Makes it a handle again.
    fn unpack<T: Content>(sent: Self::Sent<T>) -> Self::To<T>;
}

/// Handles that any thread may hold: nothing is copied on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArcRef {}

/// Handles that stay in their thread and count without atomics. What goes to another thread is taken out of its handle, or copied if
/// it has others, and put into a new one there.
///
/// A peer's handle can go to another thread if it is an [`ArcRef`]'s:
///
/// ```
/// use crust_examples::protocol::kv::{ArcRef, Peer, Reference};
///
/// fn to_another_thread(_: impl Send) {}
/// # let key = crust::Identity::generate().public_key();
/// to_another_thread(ArcRef::new(Peer { key, contact: String::new() }));
/// ```
///
/// and cannot if it is this one's:
///
/// ```compile_fail,E0277
/// use crust_examples::protocol::kv::{Peer, RcRef, Reference};
///
/// fn to_another_thread(_: impl Send) {}
/// # let key = crust::Identity::generate().public_key();
/// to_another_thread(RcRef::new(Peer { key, contact: String::new() }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RcRef {}

impl Handles for ArcRef {
    type To<T: Content> = Arc<T>;
}

impl Reference for ArcRef {
    type Sent<T: Content> = Arc<T>;

    fn new<T: Content>(content: T) -> Arc<T> {
        Arc::new(content)
    }

    fn pack<T: Content>(handle: Arc<T>) -> Arc<T> {
        handle
    }

    fn unpack<T: Content>(sent: Arc<T>) -> Arc<T> {
        sent
    }
}

impl Handles for RcRef {
    type To<T: Content> = Rc<T>;
}

impl Reference for RcRef {
    type Sent<T: Content> = Owned<T>;

    fn new<T: Content>(content: T) -> Rc<T> {
        Rc::new(content)
    }

    fn pack<T: Content>(handle: Rc<T>) -> Owned<T> {
        Owned(Rc::unwrap_or_clone(handle))
    }

    fn unpack<T: Content>(sent: Owned<T>) -> Rc<T> {
        Rc::new(sent.0)
    }
}

/// The content itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned<T>(pub T);

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What goes to another thread for `R`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed<R>(PhantomData<R>);

impl<R: Reference> Handles for Packed<R> {
    type To<T: Content> = R::Sent<T>;
}

/// Changes handles of one kind into those of another.
pub(super) trait Change<F: Handles, G: Handles> {
    fn change<T: Content>(&self, handle: F::To<T>) -> G::To<T>;
}

/// Makes handles fit to leave their thread.
pub(super) struct Pack;

/// Makes them handles again.
pub(super) struct Unpack;

impl<R: Reference> Change<R, Packed<R>> for Pack {
    fn change<T: Content>(&self, handle: R::To<T>) -> R::Sent<T> {
        R::pack(handle)
    }
}

impl<R: Reference> Change<Packed<R>, R> for Unpack {
    fn change<T: Content>(&self, sent: R::Sent<T>) -> R::To<T> {
        R::unpack(sent)
    }
}
