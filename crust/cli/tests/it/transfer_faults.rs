use std::{
    fs,
    io::{Read as _, Write as _},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crust::{Config, ProtocolLabel, Scheme, Service};
use crust_cli::transfer::{Entry, EntryKind, EntryPath, Record, Rules};

use crate::support::{Home, Running, SCHEMES, bytes};

#[test]
fn without_the_token_nobody_gets_anything() {
    for scheme in SCHEMES {
        let home = Home::new();
        let file = home.file("secret", b"secret");
        let place = format!("{scheme}://127.0.0.1:0");
        let mut sender = home.start(&["send", &file, "--listen", &place]);
        let listening = sender.event("listening");
        let endpoint = listening["endpoints"][0].as_str().unwrap();
        let message = home.run(&["receive", endpoint, "-o", "in"]).assert_failed(1, "refused");
        assert!(message.contains("access token is missing or wrong"), "{message}");
        // The token of another sender is as good as none.
        let (_other, contact) = home.serve(scheme, &["send", &file]);
        let other: crust::Contact = contact.parse().unwrap();
        let endpoint: crust::NamedEndpoint = endpoint.parse().unwrap();
        let forged = crust::Contact::from(endpoint).access_token(other.token().unwrap().clone());
        home.run(&["receive", &forged.to_string(), "-o", "in"]).assert_failed(1, "refused");
        assert_eq!(fs::read_dir(home.path("in")).unwrap().count(), 0);
        let contact = listening["contact"].as_str().unwrap();
        home.run(&["receive", contact, "-o", "in"]).assert_done();
        sender.end().assert_done();
    }
}

#[test]
fn the_token_is_in_the_contact_and_in_no_log() {
    for scheme in SCHEMES {
        let home = Home::new();
        let file = home.file("secret", b"secret");
        let (sender, contact) = home.serve(scheme, &["send", &file, "-vv"]);
        let received = home.run(&["receive", &contact, "-o", "in", "-vv"]);
        let logs = [received.assert_done().data.clone(), sender.end().assert_done().data.clone()].concat();
        let logs = String::from_utf8(logs).unwrap().to_lowercase();
        assert!(logs.contains("transport"), "{scheme}: there is a log: {logs}");
        let token = contact.parse::<crust::Contact>().unwrap().token().unwrap().clone();
        let hex: String = token.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{:?}", token.as_bytes());
        for form in [contact, token.to_string(), hex, list[1..list.len() - 1].to_owned()] {
            assert!(!logs.contains(&form), "{scheme}: {logs}");
        }
    }
}

#[test]
fn with_allow_the_key_is_the_token() {
    let home = Home::new();
    let file = home.file("f", b"1");
    let friend = home.command().args(["id", "--key", "friend.pem"]).output().unwrap().stdout;
    let friend = String::from_utf8(friend).unwrap();
    let (sender, contact) = home.serve("tcp", &["send", &file, "--allow", friend.trim()]);
    assert!(contact.parse::<crust::Contact>().unwrap().token().is_none());
    home.run(&["receive", &contact, "-o", "in"]).assert_failed(1, "refused");
    home.run(&["receive", &contact, "-o", "in", "--key", "friend.pem"]).assert_done();
    sender.end().assert_done();
}

#[test]
fn who_is_allowed_may_stand_in_the_configuration_too() {
    let home = Home::new();
    let file = home.file("f", b"1");
    let friend = home.command().args(["id", "--key", "friend.pem"]).output().unwrap().stdout;
    let friend = String::from_utf8(friend).unwrap();
    let config = home.file("my.toml", format!("allow = ['{}']", friend.trim()).as_bytes());
    let (sender, contact) = home.serve("tcp", &["send", &file, "--config", &config]);
    home.run(&["receive", &contact, "-o", "in"]).assert_failed(1, "refused");
    home.run(&["receive", &contact, "-o", "in", "--key", "friend.pem"]).assert_done();
    sender.end().assert_done();
    // A flag says more than the file.
    let (sender, contact) = home.serve("tcp", &["send", &file, "--config", &config, "--allow", "any"]);
    home.run(&["receive", &contact, "-o", "in2"]).assert_done();
    sender.end().assert_done();
}

#[test]
fn a_listener_and_a_sender_are_not_mixed_up() {
    let home = Home::new();
    let (_listener, contact) = home.serve("tcp", &["listen"]);
    let message = home.run(&["receive", &contact, "-o", "in"]).assert_failed(1, "refused");
    assert!(message.contains("does not speak that protocol"), "{message}");
}

/// A sender of our own that says `records` to the one who comes, and gives what it answers.
fn hostile(home: &Home, records: &[u8]) -> (crate::support::Ended, Vec<u8>) {
    let config = Config::new()
        .only([Scheme::Tcp])
        .listen(["tcp://127.0.0.1:0".parse().unwrap()])
        .protocols([ProtocolLabel::new("crust-send/1").unwrap()]);
    let service = Service::new_from_config(config).unwrap();
    let contact = service.controller.contact().unwrap().to_string();
    thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let mut stream = service.acceptor.accept().unwrap();
            let _ = stream.write_all(records);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        });
        let ended = home.run(&["receive", &contact, "-o", "in/side"]);
        (ended, answer.join().unwrap())
    })
}

fn offer_of(name: &str) -> Vec<u8> {
    let mut records = Vec::new();
    Record::Offer { entries: 1, total_bytes: 1 }.encode(&mut records);
    records.push(2);
    records.extend_from_slice(&u32::try_from(9 + name.len()).unwrap().to_be_bytes());
    records.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 1]);
    records.extend_from_slice(name.as_bytes());
    Record::File { index: 0, offset: 0 }.encode(&mut records);
    Record::Data(b"x").encode(&mut records);
    Record::End(*blake3::hash(b"x").as_bytes()).encode(&mut records);
    records
}

#[test]
fn a_name_that_climbs_out_is_refused_and_the_sender_told() {
    for name in ["../evil", "/tmp/crust-evil", "a/../../../evil", "..\\evil", "C:evil", "a\0", ".", "\x1b[2J"]
    {
        let home = Home::new();
        let (ended, answer) = hostile(&home, &offer_of(name));
        let message = ended.assert_failed(1, "protocol");
        assert!(message.contains("the name"), "{name:?}: {message}");
        assert_eq!(answer.first(), Some(&9), "{name:?}: the sender is told why");
        assert_eq!(fs::read_dir(home.path("in")).unwrap().count(), 1, "{name:?}");
        assert_eq!(fs::read_dir(home.path("in/side")).unwrap().count(), 0, "{name:?}");
    }
}

#[test]
#[cfg(unix)]
fn nothing_is_written_through_a_link_in_the_target() {
    let home = Home::new();
    fs::create_dir_all(home.path("in/side")).unwrap();
    fs::create_dir(home.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(home.path("elsewhere"), home.path("in/side/d")).unwrap();
    let (ended, _) = hostile(&home, &offer_of("d/evil"));
    let message = ended.assert_failed(1, "file");
    assert!(message.contains("symbolic link"), "{message}");
    assert_eq!(fs::read_dir(home.path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn bytes_that_are_not_what_their_hash_says_get_no_name() {
    let home = Home::new();
    let mut records = Vec::new();
    Record::Offer { entries: 1, total_bytes: 1 }.encode(&mut records);
    let path = EntryPath::parse("f", Rules::here()).unwrap();
    let entry = Entry { kind: EntryKind::File { executable: false }, size_bytes: 1, path };
    Record::Entry(entry).encode(&mut records);
    Record::File { index: 0, offset: 0 }.encode(&mut records);
    Record::Data(b"x").encode(&mut records);
    Record::End([0; 32]).encode(&mut records);
    let (ended, answer) = hostile(&home, &records);
    let message = ended.assert_failed(1, "file");
    assert!(message.contains("did not arrive as it was sent"), "{message}");
    assert!(answer.ends_with(b"a file did not arrive as it was sent"));
    assert_eq!(fs::read_dir(home.path("in/side")).unwrap().count(), 0);
}

#[test]
fn garbage_and_an_early_end_are_errors() {
    let home = Home::new();
    hostile(&home, b"GET / HTTP/1.1\r\n\r\n").0.assert_failed(1, "protocol");
    hostile(&home, &[6, 0xff, 0xff, 0xff, 0xff]).0.assert_failed(1, "protocol");
}

/// Needs a file system of its own, so a mount namespace.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told_in_plain_words_and_made_good_later() {
    let home = Home::new();
    let file = home.file("large", &bytes(8_000_000));
    let (mut sender, contact) = home.serve("tcp", &["send", &file]);
    fs::create_dir(home.path("small")).unwrap();
    let probe = "mount -t tmpfs -o size=2m tmpfs small";
    let can = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", probe])
        .current_dir(home.path(""))
        .output();
    if !can.as_ref().is_ok_and(|output| output.status.success()) {
        println!("NOT RUN: a full disk: no mount namespace to be had: {can:?}");
        return;
    }
    // Two attempts in one namespace: the second finds room and goes on.
    let script = format!(
        "{probe} && {{ \"$1\" receive {contact} -o small --json; echo \"{{\\\"status\\\":$?}}\"; \
         mount -o remount,size=20m small && \"$1\" receive {contact} -o small --json; \
         cmp small/large large; }}"
    );
    let inner = home.command();
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"])
        .arg(inner.get_program())
        .current_dir(home.path(""))
        .env("XDG_CONFIG_HOME", home.path("config"));
    let ended = Running::start(command, false).end();
    ended.assert_done();
    let message = ended.event("error")["message"].as_str().unwrap();
    assert!(message.contains("the disk is full") && message.contains("small/large"), "{message}");
    assert!(ended.events.iter().any(|event| event["status"] == 1), "{ended:#?}");
    let told = sender.event("closed");
    assert!(told["reason"].as_str().unwrap().contains("disk is full"), "{told}");
    sender.end().assert_done();
}

#[test]
fn a_missing_file_is_told_before_anything_is_printed() {
    let home = Home::new();
    let started = Instant::now();
    let ended = home.run(&["send", "nothing.txt"]);
    let message = ended.assert_failed(1, "file");
    assert!(message.contains("nothing.txt"), "{message}");
    assert_eq!(ended.events.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(10));
}
