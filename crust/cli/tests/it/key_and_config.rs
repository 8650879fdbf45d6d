use std::fs;

use crate::support::Home;

fn id(home: &Home, more: &[&str]) -> String {
    let ended = home.command().arg("id").args(more).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_key_is_made_once_and_kept_for_its_owner() {
    let home = Home::new();
    let first = id(&home, &[]);
    assert_eq!(first.len(), 52);
    assert_eq!(id(&home, &[]), first);
    let file = home.path("data/crust/identity.pem");
    assert!(fs::read_to_string(&file).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    }
    let other = home.path("other.pem");
    let other = id(&home, &["--key", other.to_str().unwrap()]);
    assert_ne!(other, first, "--key names another file");
}

#[test]
#[cfg(unix)]
fn a_key_that_others_can_read_is_refused_with_the_command_to_run() {
    use std::os::unix::fs::PermissionsExt as _;

    let home = Home::new();
    let first = id(&home, &[]);
    let file = home.path("data/crust/identity.pem");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let message = home.run(&["id"]).assert_failed(1, "key");
    let command = format!("chmod 600 {}", file.display());
    assert!(message.contains(&command), "{message}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(id(&home, &[]), first);
}

#[test]
fn a_damaged_or_empty_key_is_named_and_left_alone() {
    let home = Home::new();
    id(&home, &[]);
    let file = home.path("data/crust/identity.pem");
    for content in ["", "-----BEGIN PRIVATE KEY-----\nMC4C"] {
        fs::write(&file, content).unwrap();
        for command in [&["id"][..], &["listen"], &["perf", "--serve"]] {
            let message = home.run(command).assert_failed(1, "key");
            assert!(message.contains("identity.pem"), "{message}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }
}

#[test]
fn the_configuration_is_printed_as_a_file_that_can_be_used() {
    let home = Home::new();
    let printed = home.command().args(["config", "--only", "tcp", "--deadline", "3s"]).output().unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("\nonly = [\"tcp\"]\n") && text.contains("\ndeadline = \"3s\"\n"), "{text}");
    home.file("config/crust/config.toml", text.as_bytes());
    let again = home.command().arg("config").output().unwrap();
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text, "the user's own file is found and read");
    let elsewhere = home.file("empty.toml", b"");
    let without = home.command().args(["config", "--config", &elsewhere]).output().unwrap();
    assert!(String::from_utf8(without.stdout).unwrap().contains("\ndeadline = \"10s\"\n"));
}

#[test]
fn a_wrong_configuration_is_an_error_with_its_line() {
    let home = Home::new();
    let file = home.file("my.toml", b"# mine\nlisen = []\n");
    let message = home.run(&["config", "--config", &file]).assert_failed(2, "config");
    assert!(message.ends_with("my.toml:2: unknown setting `lisen`, did you mean `listen`?"), "{message}");
    let file = home.file("my.toml", b"deadline = 5\n");
    let message = home.run(&["listen", "--config", &file]).assert_failed(2, "config");
    assert!(message.contains("my.toml:1: `deadline` must be a text"), "{message}");
    let message = home.run(&["id", "--config", "/nowhere/my.toml"]).assert_failed(2, "config");
    assert!(message.contains("/nowhere/my.toml"), "{message}");
}
