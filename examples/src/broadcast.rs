//! The node of the broadcast example, driven by three threads: one reads lines, one keeps time, and the caller's own
//! has all the state. They meet in one bounded channel, and nothing is locked.

mod streams;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    io::{self, BufRead, Write},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Instant,
};

pub use streams::{Meeting, over_streams};

use crate::{
    lines::{Line, read_lines},
    protocol::{
        Node,
        maelstrom::{LineError, Message},
    },
};

/// Runs a node whose only connections are two pipes, as the Maelstrom harness wants it: a message a line. Blocks until
/// `input` ends, and has then ended the two other threads.
///
/// Lines that are no messages are told on stderr, and answered with an error where somebody waits for an answer.
///
/// # Errors
///
/// When `output` cannot be written to.
pub fn maelstrom(input: impl BufRead + Send + 'static, output: impl Write) -> io::Result<()> {
    let (tell, events) = sync_channel(EVENTS_AHEAD);
    let (set_timer, deadlines) = sync_channel(1);
    let ticking = tell.clone();
    let timer = thread::spawn(move || keep_time(&deadlines, &ticking));
    // Not joined after an error: it may sit in a read that nobody can end.
    let reader = thread::spawn(move || {
        read_lines(input, MAX_LINE, |line| tell.send(line.map_or(Event::End, Event::Line)).is_ok());
    });
    run(&events, &set_timer, output)?;
    drop((events, set_timer));
    for thread in [timer, reader] {
        thread.join().map_err(|_| io::Error::other("a thread of the node has panicked"))?;
    }
    Ok(())
}

/// What the thread with the state waits for.
#[derive(Debug)]
enum Event {
    Line(Line),
    Timer,
    End,
}

/// Owns the state: takes events until the input ends.
fn run(events: &Receiver<Event>, set_timer: &SyncSender<Instant>, mut output: impl Write) -> io::Result<()> {
    let mut node = Node::new(run_number());
    let mut set_to = None;
    while let Ok(event) = events.recv() {
        let now = Instant::now();
        match event {
            Event::Line(line) => take_line(&mut node, now, &line),
            Event::Timer => {}
            Event::End => break,
        }
        if node.poll_timeout().is_some_and(|at| at <= now) {
            node.handle_timeout(now);
        }
        let mut lines = Vec::new();
        while let Some(message) = node.poll_transmit() {
            lines.extend(message.to_line());
        }
        output.write_all(&lines)?;
        output.flush()?;
        let next = node.poll_timeout();
        if let Some(at) = next.filter(|_| next != set_to) {
            // It reads at once whatever comes, so this does not wait.
            let _ = set_timer.send(at);
            set_to = next;
        }
    }
    Ok(())
}

fn take_line(node: &mut Node, now: Instant, line: &Line) {
    let line = match line {
        Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => return,
        Line::Whole(line) => line,
        Line::TooLong => return eprintln!("a line of more than {MAX_LINE} bytes was skipped"),
    };
    match Message::from_line(line) {
        Ok(message) => node.handle_message(now, message),
        Err(error) => {
            eprintln!("{error}");
            if let LineError::Body { answer, .. } = error {
                node.refuse(*answer);
            }
        }
    }
}

/// The thread that keeps time: tells when the last deadline it was given has come.
fn keep_time(deadlines: &Receiver<Instant>, tell: &SyncSender<Event>) {
    let mut deadline = None;
    loop {
        let next = match deadline {
            None => deadlines.recv().map_err(RecvTimeoutError::from),
            Some(at) => deadlines.recv_timeout(Instant::saturating_duration_since(&at, Instant::now())),
        };
        match next {
            Ok(at) => deadline = Some(at),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                // Where the queue is full the other thread is awake, and looks at the clock itself.
                let _ = tell.try_send(Event::Timer);
                deadline = None;
            }
        }
    }
}

/// Tells this run from others: what the standard library draws to seed its hash maps.
fn run_number() -> u32 {
    let number = RandomState::new().build_hasher().finish();
    u32::try_from(number >> 32).expect("32 bits are left")
}

/// A repair of a group that was parted for long is some 100 KiB.
const MAX_LINE: usize = 4 << 20;
/// Lines that wait for the thread with the state; when there are more, whoever sends them waits.
const EVENTS_AHEAD: usize = 1_024;
