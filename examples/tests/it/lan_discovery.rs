use crate::support::Program;

const LAN_DISCOVERY: &str = env!("CARGO_BIN_EXE_lan_discovery");

#[test]
fn two_programs_see_each_other_come_change_and_go() {
    let mut ada = Program::start(LAN_DISCOVERY, &["ada", "0"]);
    let port = ada.line().trim_start_matches("ada is announced on port ").to_owned();
    let mut bob = Program::start(LAN_DISCOVERY, &["bob", &port]);
    assert_eq!(bob.line(), format!("bob is announced on port {port}"));

    assert!(bob.line().starts_with("\"ada\" is at 127.0.0.1, seen on lo"));
    assert!(ada.line().starts_with("\"bob\" is at 127.0.0.1, seen on lo"));
    ada.say("at tea");
    assert_eq!(bob.line(), "now \"ada, at tea\" is at 127.0.0.1");
    ada.hang_up();
    assert_eq!(bob.line(), "\"ada, at tea\" has left: Goodbye");
    bob.hang_up();
    assert!(ada.end().is_empty() && bob.end().is_empty());
}

#[test]
fn it_is_the_short_program_that_it_is_meant_to_be() {
    let source = include_str!("../../src/bin/lan_discovery.rs");
    assert!(source.lines().count() < 60);
}
