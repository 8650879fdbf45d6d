use std::{io::Write as _, process::Stdio, thread};

use crate::support::{Home, SCHEMES, bytes};

#[test]
fn both_directions_carry_all_bytes_at_once() {
    for scheme in SCHEMES {
        let home = Home::new();
        let (mut listener, contact) = home.serve(scheme, &["listen", "--once"]);
        let mut dialler = home.start(&["connect", &contact]);
        let (up, down) = (bytes(5_000_000), bytes(7_000_001));
        thread::scope(|scope| {
            scope.spawn(|| listener.write(&down));
            scope.spawn(|| dialler.write(&up));
        });
        listener.close_stdin();
        let (dialled, listened) = (dialler.end(), listener.end());
        assert!(dialled.assert_done().data == down, "{scheme}: all bytes down");
        assert!(listened.assert_done().data == up, "{scheme}: all bytes up");
        let connected = dialled.event("connected");
        assert_eq!((&connected["transport"], &connected["road"]), (&scheme.into(), &"lan".into()));
        assert_eq!(connected["peer"], listened.event("listening")["id"]);
        assert!(connected["elapsed_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(dialled.event("done")["bytes"], down.len());
    }
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    for scheme in SCHEMES {
        let home = Home::new();
        let (mut listener, contact) = home.serve(scheme, &["listen", "--once"]);
        let mut dialler = home.start(&["connect", &contact]);
        dialler.write(b"question");
        dialler.close_stdin();
        listener.event("connected");
        // The dialler has ended its side; whatever it hears now came after that.
        listener.write(b"answer");
        let listened = listener.end();
        let dialled = dialler.wait();
        assert_eq!(dialled.assert_done().data, b"answer");
        assert_eq!(listened.assert_done().data, b"question");
    }
}

#[test]
fn the_next_stream_waits_for_the_one_before() {
    let home = Home::new();
    let (mut listener, contact) = home.serve("tcp", &["listen"]);
    listener.close_stdin();
    let mut first = home.start(&["connect", &contact]);
    first.event("connected");
    first.write(b"first ");
    let mut second = home.start(&["connect", &contact]);
    second.event("connected");
    second.write(b"second");
    second.close_stdin();
    first.end().assert_done();
    second.wait().assert_done();
    for _ in 0..2 {
        listener.event("done");
    }
    listener.interrupt();
    assert_eq!(listener.wait().assert_done().data, b"first second");
}

#[test]
fn nobody_there_is_status_1_with_every_attempt() {
    let home = Home::new();
    let (mut listener, contact) = home.serve("tcp", &["listen"]);
    listener.kill();
    let ended = home.run(&["connect", &contact]);
    let message = ended.assert_failed(1, "connect");
    assert!(message.contains("1 tried") && message.contains("refused"), "{message}");
    let failed = &ended.events[ended.events.len() - 2];
    assert_eq!(failed["event"], "failed");
    let attempt = &failed["attempts"][0];
    assert_eq!((&attempt["transport"], &attempt["road"]), (&"tcp".into(), &"lan".into()));
    assert!(attempt["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(attempt["elapsed_ms"].is_f64() && attempt["reason"].is_string());
}

#[test]
fn another_key_at_that_address_is_refused_at_once() {
    for scheme in SCHEMES {
        let home = Home::new();
        let mut listener = home.start(&["listen", "--listen", &format!("{scheme}://127.0.0.1:0")]);
        let endpoint = listener.event("listening")["endpoints"][0].as_str().unwrap().to_owned();
        let other = home.command().args(["id", "--key", "other.pem"]).output().unwrap().stdout;
        let other = String::from_utf8(other).unwrap();
        let wrong = format!("{}?pubkey={}", endpoint.split('?').next().unwrap(), other.trim());
        let message = home.run(&["connect", &wrong]).assert_failed(1, "connect");
        assert!(message.contains("a different key"), "{message}");
        let mut dialler = home.start(&["connect", &endpoint]);
        dialler.event("connected");
    }
}

#[test]
fn only_keys_that_are_allowed_come_in() {
    for scheme in SCHEMES {
        let home = Home::new();
        let friend = home.command().args(["id", "--key", "friend.pem"]).output().unwrap().stdout;
        let friend = String::from_utf8(friend).unwrap();
        let (mut listener, contact) = home.serve(scheme, &["listen", "--once", "--allow", friend.trim()]);
        listener.write(b"hello");
        let refused = home.run(&["connect", &contact]);
        let message = refused.assert_failed(1, "refused");
        assert!(message.contains("our key is not admitted"), "{message}");
        let mut welcome = home.start(&["connect", &contact, "--key", "friend.pem"]);
        welcome.event("connected");
        listener.close_stdin();
        assert_eq!(welcome.end().assert_done().data, b"hello");
        listener.end().assert_done();
    }
}

#[test]
fn a_peer_that_is_killed_is_an_error_and_no_end() {
    let home = Home::new();
    let (mut listener, contact) = home.serve("tcp", &["listen"]);
    let mut dialler = home.start(&["connect", &contact]);
    dialler.event("connected");
    listener.write(b"half of it");
    listener.kill();
    let message = dialler.end().assert_failed(1, "stream");
    assert!(message.contains("cut off"), "{message}");
}

#[test]
fn an_interrupt_ends_a_command_in_order() {
    let home = Home::new();
    let (mut listener, contact) = home.serve("tcp", &["listen"]);
    let mut dialler = home.start(&["connect", &contact]);
    dialler.event("connected");
    listener.event("connected");
    dialler.interrupt();
    dialler.wait().assert_failed(1, "interrupted");
    let closed = listener.event("closed");
    assert!(closed["reason"].is_string(), "the listener knows that it was cut off: {closed}");
    listener.interrupt();
    listener.wait().assert_done();
}

#[test]
fn when_nobody_reads_the_output_the_peer_is_told() {
    let home = Home::new();
    let (mut listener, contact) = home.serve("tcp", &["listen", "--once"]);
    let mut child = home
        .command()
        .args(["connect", &contact])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    listener.event("connected");
    // As in `crust connect … | head`: whatever is written, nobody is there to read it.
    let content = bytes(8_000_000);
    while listener.stdin().write_all(&content).is_ok() {}
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let text = String::from_utf8(ended.stderr).unwrap();
    assert!(text.contains("whoever read standard output went away"), "{text}");
    listener.wait().assert_failed(1, "stream");
}
