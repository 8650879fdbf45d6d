use std::net::UdpSocket;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use super::*;

/// A task that tells of its turns, by what its socket gets.
struct Echo {
    socket: UdpSocket,
    _source: mio::net::UdpSocket,
    told: Sender<Vec<u8>>,
    due: Option<Instant>,
}

impl Echo {
    fn new(sources: &Sources, socket: UdpSocket, told: Sender<Vec<u8>>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let mut source = mio::net::UdpSocket::from_std(socket.try_clone()?);
        sources.register(&mut source, 7, Interest::READABLE)?;
        Ok(Self { socket, _source: source, told, due: Some(now() + Duration::from_millis(1)) })
    }
}

impl Task for Echo {
    fn turn(&mut self, now: Instant, ready: &[usize], woken: bool) -> Turn {
        assert!(ready.iter().all(|number| *number == 7), "{ready:?}");
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            let _ = self.told.send(b"due".to_vec());
        }
        if woken {
            let _ = self.told.send(b"woken".to_vec());
        }
        let mut buffer = [0; 64];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            match &buffer[..length] {
                b"over" => return Turn::Over,
                b"panic" => panic!("on purpose"),
                other => drop(self.told.send(other.to_vec())),
            }
        }
        Turn::Wait
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

fn echo() -> (Handle, std::net::SocketAddr, Receiver<Vec<u8>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (addr, (told, hears)) = (socket.local_addr().unwrap(), channel());
    (add(|sources| Echo::new(&sources, socket, told)).unwrap(), addr, hears)
}

fn send(to: std::net::SocketAddr, what: &[u8]) {
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(what, to).unwrap();
}

/// What is told sooner or later; whoever else uses the thread wakes it, too.
fn hear(hears: &Receiver<Vec<u8>>, what: &[u8]) {
    let deadline = now() + PATIENCE;
    while hears.recv_timeout(deadline.saturating_duration_since(now())).unwrap() != what {}
}

#[test]
fn tasks_are_turned_for_their_sockets_their_time_and_whoever_wakes_them() {
    let (one, other) = (echo(), echo());
    for (handle, addr, hears) in [&one, &other] {
        hear(hears, b"due");
        handle.wake();
        hear(hears, b"woken");
        send(*addr, b"word");
        hear(hears, b"word");
    }
    one.0.stop();
    // Its end of the channel, and so its socket, is gone when that returns.
    one.2.try_iter().for_each(drop);
    assert_eq!(one.2.try_recv(), Err(TryRecvError::Disconnected));
    send(other.1, b"still there");
    hear(&other.2, b"still there");
    one.0.stop();
    other.0.stop();
}

#[test]
fn a_task_that_panics_or_ends_takes_no_other_along() {
    let (one, other, third) = (echo(), echo(), echo());
    send(one.1, b"panic");
    send(third.1, b"over");
    for gone in [&one.2, &third.2] {
        let deadline = now() + PATIENCE;
        // Its end of the channel goes with it.
        while gone.recv_timeout(deadline.saturating_duration_since(now())).is_ok() {}
        assert!(now() < deadline);
    }
    send(other.1, b"still there");
    hear(&other.2, b"still there");
    [one, other, third].iter().for_each(|(handle, ..)| handle.stop());
}

#[test]
fn a_task_that_cannot_be_made_leaves_nothing_behind() {
    let made = add(|_| Err::<Echo, _>(io::Error::other("on purpose")));
    assert_eq!(made.unwrap_err().to_string(), "on purpose");
    let (handle, addr, hears) = echo();
    send(addr, b"word");
    hear(&hears, b"word");
    handle.stop();
}

/// Far beyond what this takes.
const PATIENCE: Duration = Duration::from_secs(30);
