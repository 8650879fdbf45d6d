use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crust::{Config, Lan, Refusal, Scheme, Service, ServiceEvent};

use crate::support::{client, listening};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn started(file: &Path) -> Service {
    let config = Config::from_file(file).unwrap().lan(Lan::Off);
    Service::new_from_config(config.listen(["tcp://127.0.0.1:0".parse().unwrap()])).unwrap()
}

/// What the service says next of its file.
fn told(service: &Service) -> ServiceEvent {
    service.controller.events().recv_deadline(soon()).unwrap()
}

#[test]
fn what_changes_in_the_file_is_taken_over_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "allow = []\n").unwrap();
    let server = started(&file);
    let (client, contact) = (client(), server.controller.contact().unwrap());
    let refusal = || client.controller.connect(&contact).map(drop).err()?.refusal();
    assert_eq!(refusal(), Some(Refusal::Key));

    fs::write(&file, "allow = \"any\"\ndeadline = \"7s\"\nmax_mtu = 1452\n").unwrap();
    let event = told(&server);
    let ServiceEvent::ConfigReloaded { mut applied, waiting } = event else { panic!("{event:?}") };
    applied.sort_unstable();
    assert_eq!((applied, waiting), (vec!["allow", "deadline"], vec!["max_mtu"]));
    assert_eq!(refusal(), None);

    fs::write(&file, "allow = []\nalow = []\n").unwrap();
    let event = told(&server);
    let ServiceEvent::ConfigUnusable { reason } = event else { panic!("{event:?}") };
    assert!(reason.contains("config.toml:2") && reason.contains("`allow`"), "{reason}");
    assert_eq!(refusal(), None, "the settings stay");

    fs::remove_file(&file).unwrap();
    assert!(matches!(told(&server), ServiceEvent::ConfigUnusable { .. }));
    fs::write(&file, format!("block = [\"{}\"]\n", client.controller.public_key())).unwrap();
    assert!(matches!(told(&server), ServiceEvent::ConfigReloaded { .. }));
    assert_eq!(refusal(), Some(Refusal::Key));
}

#[test]
fn what_the_program_has_set_is_not_the_files_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "").unwrap();
    let config = Config::from_file(&file).unwrap().lan(Lan::Off).allow([]);
    let config = config.listen(["tcp://127.0.0.1:0".parse().unwrap()]);
    let server = Service::new_from_config(config).unwrap();
    let nobody = crust::Identity::generate().public_key();
    fs::write(&file, format!("allow = [\"{nobody}\"]\ndeadline = \"7s\"\n")).unwrap();
    let event = told(&server);
    assert!(
        matches!(&event, ServiceEvent::ConfigReloaded { applied, waiting } if *applied == ["deadline"] && waiting.is_empty()),
        "{event:?}"
    );
}

#[test]
fn an_introducer_that_is_added_to_the_file_is_attached_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "").unwrap();
    let server = started(&file);
    let middle = Service::new_from_config(listening(Scheme::Tcp).lan(Lan::Off).introduce(true)).unwrap();
    let place = middle.controller.endpoints().unwrap()[0];
    fs::write(&file, format!("introducers = [\"{place}\"]\n")).unwrap();
    assert!(
        matches!(told(&server), ServiceEvent::ConfigReloaded { applied, .. } if applied == ["introducers"])
    );
    assert!(server.controller.wait_attached(soon()));
    let dialler =
        Service::new_from_config(Config::new().lan(Lan::Off).listen([]).introducers([place.into()]));
    dialler.unwrap().controller.connect(server.controller.public_key()).unwrap();
}
