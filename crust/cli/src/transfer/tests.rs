//! Sender and receiver against each other over a pair of sockets, and against a peer that misbehaves.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
};

use super::*;
use crate::progress::Progress;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn send(stream: &TcpStream, paths: &[PathBuf]) -> Result<(), TransferError> {
    let source = Source::collect(paths)?;
    let (tell, heard) = crossbeam::channel::bounded(16);
    thread::scope(|scope| {
        scope.spawn(move || listen_to(stream, &tell));
        let result = serve(stream, &heard, &source, &mut Progress::silent());
        drop(heard);
        let _ = stream.shutdown(std::net::Shutdown::Both);
        result
    })
}

fn receive(stream: &TcpStream, into: &Path) -> Result<usize, TransferError> {
    let mut target = Target::open(into, false)?;
    fetch(stream, stream, &mut target, &mut Progress::silent()).map(|received| received.files)
}

fn both(paths: &[PathBuf], into: &Path) -> (Result<(), TransferError>, Result<usize, TransferError>) {
    let (sender, receiver) = pair();
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(&sender, paths));
        let received = receive(&receiver, into);
        drop(receiver);
        (sending.join().unwrap(), received)
    })
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn a_tree_arrives_as_it_is() {
    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = from.path().join("tree");
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("nothing"), "").unwrap();
    fs::write(root.join("deep/er/large"), bytes(1_000_003)).unwrap();
    for number in 0..300 {
        fs::write(root.join(format!("deep/{number}")), number.to_string()).unwrap();
    }
    let (sent, received) = both(std::slice::from_ref(&root), into.path());
    sent.unwrap();
    assert_eq!(received.unwrap(), 302);
    let there = into.path().join("tree");
    assert_eq!(fs::read(there.join("deep/er/large")).unwrap(), bytes(1_000_003));
    assert_eq!(fs::read(there.join("nothing")).unwrap(), b"");
    assert_eq!(fs::read_to_string(there.join("deep/299")).unwrap(), "299");
    assert_eq!(fs::read_dir(there.join("empty")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(there.join("deep")).unwrap().count(), 301, "no part stays behind");
    let (sent, received) = both(&[root], into.path());
    sent.unwrap();
    assert_eq!(received.unwrap(), 302, "a second time, all is there already");
}

#[test]
fn a_transfer_that_was_cut_off_goes_on_at_that_byte() {
    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("large");
    fs::write(&file, bytes(3_000_000)).unwrap();
    // A relay that goes away in the middle.
    let (sender, near) = pair();
    let (far, receiver) = pair();
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(&sender, std::slice::from_ref(&file)));
        let receiving = scope.spawn(|| receive(&receiver, into.path()));
        let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        scope.spawn(move || std::io::copy(&mut back_from, &mut back_to));
        std::io::copy(&mut (&near).take(1_500_000), &mut &far).unwrap();
        let _ = near.shutdown(std::net::Shutdown::Both);
        let _ = far.shutdown(std::net::Shutdown::Both);
        assert!(sending.join().unwrap().is_err());
        assert!(matches!(receiving.join().unwrap(), Err(TransferError::CutOff | TransferError::Stream(_))));
    });
    assert!(!into.path().join("large").exists(), "no half file under its name");
    let part = fs::read_dir(into.path()).unwrap().next().unwrap().unwrap().metadata().unwrap().len();
    assert!(part > 1_400_000, "{part} bytes were kept");
    // Count what travels in the second attempt.
    let (sender, near) = pair();
    let (far, receiver) = pair();
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(&sender, std::slice::from_ref(&file)));
        let receiving = scope.spawn(|| receive(&receiver, into.path()));
        let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        scope.spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let travelled = std::io::copy(&mut &near, &mut &far).unwrap();
        sending.join().unwrap().unwrap();
        receiving.join().unwrap().unwrap();
        let _ = far.shutdown(std::net::Shutdown::Both);
        assert!(travelled < 3_000_000 - part + 10_000, "{travelled} bytes for the rest of {part}");
    });
    assert_eq!(fs::read(into.path().join("large")).unwrap(), bytes(3_000_000));
}

#[test]
fn names_that_climb_out_are_refused_and_nothing_is_written() {
    for name in ["../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil", "C:\\evil", "a\0b", "", "a//b"] {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("in");
        let (mut sender, receiver) = pair();
        let mut offer = Vec::new();
        Record::Offer { entries: 1, total_bytes: 1 }.encode(&mut offer);
        offer.extend_from_slice(&[2]);
        offer.extend_from_slice(&u32::try_from(9 + name.len()).unwrap().to_be_bytes());
        offer.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 1]);
        offer.extend_from_slice(name.as_bytes());
        sender.write_all(&offer).unwrap();
        let error = receive(&receiver, &into).unwrap_err();
        assert!(matches!(error, TransferError::Protocol(ProtocolError::Path(_))), "{name:?}: {error}");
        drop(receiver);
        let mut answer = Vec::new();
        sender.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.first(), Some(&9), "the sender is told");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
    }
}

#[test]
fn the_sender_is_told_why_the_receiver_gave_up() {
    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("f"), bytes(50_000_000)).unwrap();
    fs::write(into.path().join("f"), "mine").unwrap();
    let (sent, received) = both(&[from.path().join("f")], into.path());
    assert!(matches!(received, Err(TransferError::Target(_))));
    let error = sent.unwrap_err();
    assert!(error.to_string().contains("another file of that name"), "{error}");
    assert_eq!(fs::read_to_string(into.path().join("f")).unwrap(), "mine");
}

#[test]
fn the_receiver_is_told_when_a_file_became_shorter() {
    let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("f");
    fs::write(&file, bytes(1_000)).unwrap();
    let source = Source::collect(std::slice::from_ref(&file)).unwrap();
    fs::write(&file, bytes(10)).unwrap();
    let (sender, receiver) = pair();
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&receiver, into.path()));
        let (tell, heard) = crossbeam::channel::bounded(16);
        let stream = &sender;
        scope.spawn(move || listen_to(stream, &tell));
        let result = serve(stream, &heard, &source, &mut Progress::silent());
        assert!(matches!(result, Err(TransferError::Source(SourceError::Changed { .. }))));
        assert!(matches!(receiving.join().unwrap(), Err(TransferError::Peer { .. })));
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
}
