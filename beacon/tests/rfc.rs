//! The names of the RFC, with its signatures: a change of any of them does not compile.

use std::time::Duration;

use beacon::{Beacon, BeaconConfig, BeaconController, BeaconError, Interfaces};

/// The RFC's own use of the library. It is compiled and not called: it speaks on every interface of the machine, which
/// a test has no right to. The tests in network namespaces call [`Beacon::new`], and the one below does the same on
/// loopback.
#[expect(dead_code, reason = "see above")]
fn finds_others_on_the_lan(port: u16, name: String) -> Result<Vec<u8>, BeaconError> {
    const ID_BYTES: usize = 16;
    let (mut beacon, controller): (Beacon, BeaconController) =
        Beacon::new(port, ID_BYTES, name, Duration::from_secs(1))?;
    controller.set_period(Duration::from_secs(2));
    controller.set_data(b"some other data").expect("it is small");
    let mut message = Vec::new();
    let heard: Option<()> = beacon.next_message(&mut message);
    heard.expect("the controller is still held");
    Ok(message)
}

#[test]
fn messages_are_repeated_and_the_buffer_is_replaced() {
    let config = BeaconConfig::new(0).interfaces(Interfaces::Loopback).period(Duration::from_millis(50));
    let (alice, _alice_controller) = Beacon::with_config(config.clone(), "alice").expect("loopback is up");
    let port = alice.port();
    let config = BeaconConfig::new(port).interfaces(Interfaces::Loopback).period(Duration::from_millis(50));
    let (mut bob, _bob_controller) = Beacon::with_config(config, "bob").expect("loopback is up");

    let mut message = b"what was here before".to_vec();
    for _ in 0..3 {
        bob.next_message(&mut message).expect("the controller is still held");
        assert_eq!(message, b"alice");
    }
}
