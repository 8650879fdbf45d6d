//! A judge for nodes that speak Maelstrom's protocol: it plays clients, carries messages, does harm, and checks what the
//! clients saw. In virtual time, where nodes are state machines, and in real time, where they are processes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod broadcast;
mod cheats;
mod figures;
mod history;
mod judge;
mod nemesis;
mod processes;
mod random;
mod virtual_time;
