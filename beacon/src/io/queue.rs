//! The bounded queue from the thread to the application: news pushes out the oldest, repetitions wait for room.

use crossbeam::channel::{self, Receiver, Sender, TrySendError};

use crate::message::Message;
use crate::protocol::News;

/// Where messages go.
pub(crate) enum Outlet {
    Queue(Queue),
    Handler(Box<dyn FnMut(Message) + Send>),
}

impl Outlet {
    pub(crate) fn push(&mut self, message: Message) {
        match self {
            Self::Queue(queue) => queue.push(message),
            Self::Handler(handle) => handle(message),
        }
    }

    /// How many messages were pushed out unread.
    pub(crate) const fn dropped(&self) -> u64 {
        match self {
            Self::Queue(queue) => queue.dropped,
            Self::Handler(_) => 0,
        }
    }
}

/// The thread's end of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: Sender<Message>,
    /// Only to take the oldest out.
    oldest: Receiver<Message>,
    dropped: u64,
}

impl Queue {
    pub(crate) fn new() -> (Self, Receiver<Message>) {
        let (sender, receiver) = channel::bounded(QUEUE_MESSAGES);
        (Self { sender, oldest: receiver.clone(), dropped: 0 }, receiver)
    }

    /// Adds a message. A repetition is left out while the queue is more than half full: whoever reads so slowly
    /// has not yet read what it repeats.
    pub(crate) fn push(&mut self, message: Message) {
        if message.news() == News::Repeated && self.sender.len() >= QUEUE_MESSAGES / 2 {
            return;
        }
        let mut message = message;
        while let Err(TrySendError::Full(returned)) = self.sender.try_send(message) {
            message = returned;
            self.dropped += u64::from(self.oldest.try_recv().is_ok());
        }
    }
}

/// Enough for every peer of a crowded link to appear while the application is busy; at most 600 kB.
const QUEUE_MESSAGES: usize = 512;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::protocol::{Event, Link, LinkId};

    #[test]
    fn an_application_that_does_not_read_loses_the_oldest_and_it_is_counted() {
        let (mut queue, receiver) = Queue::new();

        for number in 0..QUEUE_MESSAGES + 3 {
            queue.push(message(News::Appeared, number));
        }

        assert_eq!(Outlet::Queue(queue).dropped(), 3);
        assert_eq!(receiver.recv().expect("messages wait").payload(), 3_usize.to_be_bytes());
        assert_eq!(receiver.len(), QUEUE_MESSAGES - 1);
    }

    #[test]
    fn repetitions_leave_room_for_news() {
        let (mut queue, receiver) = Queue::new();

        for number in 0..2 * QUEUE_MESSAGES {
            queue.push(message(News::Repeated, number));
        }

        assert_eq!(receiver.len(), QUEUE_MESSAGES / 2);
        assert_eq!(queue.dropped, 0);
    }

    fn message(news: News, number: usize) -> Message {
        let link = Link { id: LinkId(1), name: "net0".into(), networks: vec![], datagrams_per_round: 1 };
        let source = SocketAddr::from(([10, 0, 0, 1], 9));
        let payload = number.to_be_bytes().to_vec();
        Message::new(Event { news, link: Arc::new(link), source, other_source: None, payload })
    }
}
