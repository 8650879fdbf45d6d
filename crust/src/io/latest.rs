//! A channel that keeps the latest: when nobody takes them, the oldest make room.

use crossbeam::channel::{Receiver, Sender, unbounded};

/// The sending end. Memory is taken for what is in the channel only, as most of them stay empty.
#[derive(Debug)]
pub(crate) struct Latest<T> {
    sender: Sender<T>,
    oldest: Receiver<T>,
    most: usize,
}

impl<T> Latest<T> {
    /// A channel that keeps `most`, and one more for each thread that puts something there at the same moment.
    pub(crate) fn new(most: usize) -> (Self, Receiver<T>) {
        let (sender, receiver) = unbounded();
        (Self { sender, oldest: receiver.clone(), most }, receiver)
    }

    pub(crate) fn put(&self, item: T) {
        while self.oldest.len() >= self.most {
            // Somebody may have taken it meanwhile, which makes room as well.
            let _ = self.oldest.try_recv();
        }
        // We hold a receiver, so it cannot fail.
        let _ = self.sender.send(item);
    }
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), oldest: self.oldest.clone(), most: self.most }
    }
}
