use std::fs;

use crate::support::{Home, SCHEMES, bytes};

#[test]
fn files_and_folders_arrive_by_either_scheme() {
    for scheme in SCHEMES {
        let home = Home::new();
        home.file("photos/deep/large", &bytes(3_000_003));
        home.file("photos/small", b"s");
        home.file("photos/nothing", b"");
        fs::create_dir(home.path("photos/empty")).unwrap();
        home.file("notes.txt", b"notes");
        let (sender, contact) = home.serve(scheme, &["send", "photos", "notes.txt"]);
        let received = home.run(&["receive", &contact, "-o", "in"]);
        assert_eq!(received.assert_done().event("done")["bytes"], 3_000_009);
        sender.end().assert_done();
        assert!(fs::read(home.path("in/photos/deep/large")).unwrap() == bytes(3_000_003));
        assert_eq!(fs::read(home.path("in/photos/small")).unwrap(), b"s");
        assert_eq!(fs::read(home.path("in/photos/nothing")).unwrap(), b"");
        assert!(fs::read_dir(home.path("in/photos/empty")).unwrap().next().is_none());
        assert_eq!(fs::read(home.path("in/notes.txt")).unwrap(), b"notes");
        assert_eq!(fs::read_dir(home.path("in/photos")).unwrap().count(), 4, "no part stays behind");
    }
}

#[test]
fn thousands_of_small_files_arrive() {
    let home = Home::new();
    for number in 0..3_000 {
        home.file(&format!("many/{}/{number}", number % 10), number.to_string().as_bytes());
    }
    let (sender, contact) = home.serve("tcp", &["send", "many"]);
    home.run(&["receive", &contact, "-o", "in"]).assert_done();
    sender.end().assert_done();
    for number in 0..3_000 {
        let file = home.path(&format!("in/many/{}/{number}", number % 10));
        assert_eq!(fs::read_to_string(file).unwrap(), number.to_string());
    }
}

#[test]
fn a_receiver_that_was_killed_goes_on_at_the_byte_where_it_stopped() {
    for scheme in SCHEMES {
        let home = Home::new();
        let content = bytes(LARGE);
        let file = home.file("large", &content);
        let (sender, contact) = home.serve(scheme, &["send", &file]);
        let mut receiver = home.start(&["receive", &contact, "-o", "in"]);
        receiver.event("progress");
        receiver.kill();
        let there: Vec<_> = fs::read_dir(home.path("in")).unwrap().map(Result::unwrap).collect();
        let names: Vec<_> = there.iter().map(|file| file.file_name().into_string().unwrap()).collect();
        assert!(
            names.len() == 1 && names[0].starts_with(".crust-part-"),
            "{scheme}: no half file: {names:?}"
        );
        let had = there[0].metadata().unwrap().len();
        assert!(had < LARGE as u64, "{scheme}: it was killed in the middle");
        // The same contact still serves.
        let received = home.run(&["receive", &contact, "-o", "in"]);
        received.assert_done();
        assert_eq!(received.event("progress")["bytes"], had, "{scheme}: the first thing told");
        sender.end().assert_done();
        assert!(fs::read(home.path("in/large")).unwrap() == content, "{scheme}");
        assert_eq!(fs::read_dir(home.path("in")).unwrap().count(), 1);
    }
}

#[test]
fn a_sender_that_was_killed_is_replaced_by_another() {
    let home = Home::new();
    let content = bytes(LARGE);
    let file = home.file("large", &content);
    let (mut sender, contact) = home.serve("tcp", &["send", &file]);
    let mut receiver = home.start(&["receive", &contact, "-o", "in"]);
    receiver.event("progress");
    sender.kill();
    receiver.end().assert_failed(1, "stream");
    assert!(!home.path("in/large").exists());
    let (sender, contact) = home.serve("tcp", &["send", &file]);
    let received = home.run(&["receive", &contact, "-o", "in"]);
    assert!(received.assert_done().event("progress")["bytes"].as_u64().unwrap() > 0);
    sender.end().assert_done();
    assert!(fs::read(home.path("in/large")).unwrap() == content);
}

#[test]
fn what_is_there_already_does_not_travel_again_and_what_differs_stays() {
    let home = Home::new();
    let file = home.file("f", &bytes(100_000));
    home.file("in/f", &bytes(100_000));
    let (sender, contact) = home.serve("tcp", &["send", &file]);
    let received = home.run(&["receive", &contact, "-o", "in"]);
    assert_eq!(received.assert_done().event("progress")["bytes"], 100_000);
    sender.end().assert_done();

    home.file("in/f", b"mine");
    let (sender, contact) = home.serve("tcp", &["send", &file]);
    let message = home.run(&["receive", &contact, "-o", "in"]).assert_failed(1, "file");
    assert!(message.contains("is there already and differs"), "{message}");
    assert_eq!(fs::read(home.path("in/f")).unwrap(), b"mine");
    home.run(&["receive", &contact, "-o", "in", "--overwrite"]).assert_done();
    sender.end().assert_done();
    assert!(fs::read(home.path("in/f")).unwrap() == bytes(100_000));
}

#[test]
#[cfg(unix)]
fn whether_a_file_may_be_run_travels_and_nothing_else_of_its_mode() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    let home = Home::new();
    let run = home.file("d/run", b"#!/bin/sh\n");
    home.file("d/read", b"");
    fs::set_permissions(run, fs::Permissions::from_mode(0o4755)).unwrap();
    let (sender, contact) = home.serve("tcp", &["send", "d"]);
    home.run(&["receive", &contact, "-o", "in"]).assert_done();
    sender.end().assert_done();
    let mode = |name: &str| fs::metadata(home.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("in/d/run") & 0o7100, 0o100, "it may be run, and not as somebody else");
    assert_eq!(mode("in/d/read") & 0o7111, 0);
}

#[test]
fn keep_serves_one_after_the_other_until_interrupted() {
    let home = Home::new();
    let file = home.file("f", b"content");
    let (sender, contact) = home.serve("tcp", &["send", "--keep", &file]);
    for into in ["a", "b"] {
        home.run(&["receive", &contact, "-o", into]).assert_done();
        assert_eq!(fs::read(home.path(into).join("f")).unwrap(), b"content");
    }
    sender.interrupt();
    sender.wait().assert_done();
}

/// Takes a good part of a second, so that there is a middle to be killed in.
const LARGE: usize = 150_000_000;
