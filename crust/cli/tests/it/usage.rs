use std::process::Stdio;

use crate::support::Home;

const COMMANDS: [&str; 10] =
    ["id", "listen", "connect", "send", "receive", "forward", "discover", "perf", "config", "demo"];

#[test]
fn every_help_carries_an_example_and_ends_with_status_0() {
    let home = Home::new();
    let all = home.command().arg("--help").output().unwrap();
    let text = String::from_utf8(all.stdout).unwrap();
    assert!(all.status.success() && text.contains("Example"), "{text}");
    for name in COMMANDS {
        assert!(text.contains(name), "{name}");
        let one = home.command().args([name, "--help"]).output().unwrap();
        let text = String::from_utf8(one.stdout).unwrap();
        assert!(one.status.success() && text.contains(&format!("crust {name}")), "{text}");
        assert!(text.contains("Example"), "{text}");
    }
}

#[test]
fn wrong_usage_ends_with_status_2_and_an_error() {
    let home = Home::new();
    let key = "a".repeat(52);
    for arguments in [
        &["connect"][..],
        &["connect", "nonsense"],
        &["discover", "--for", "ever"],
        &["discover", "--no-lan"],
        &["connect", "tcp://127.0.0.1:1"],
        &["send"],
        &["receive", "crust1aaaa"],
        &["forward", "127.0.0.1:1"],
        &["forward", "--to", "nowhere"],
        &["forward", "--to", "127.0.0.1:1", "127.0.0.1:2", "crust1aaaa"],
        &["perf"],
        &["id", "--only", "utp"],
        &["id", "--allow", "somebody"],
        &["id", "--deadline", "soon"],
        &["id", "--listen", "127.0.0.1:1"],
        &["listen", "--allow", "any", "--allow", &key],
        &["dance"],
    ] {
        let ended = home.run(arguments);
        assert!(!ended.assert_failed(2, "usage").is_empty(), "{arguments:?}");
        let plain = home.command().args(arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(plain.status.code(), Some(2), "{arguments:?}");
        assert!(plain.stdout.is_empty() && !plain.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn nobody_reading_the_output_is_no_crash() {
    let home = Home::new();
    for arguments in [&["id"][..], &["config"], &["--help"]] {
        let mut child =
            home.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.code().is_some(), "not killed by a signal");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
    }
}
