use crate::support::Program;

const CONNECT: &str = env!("CARGO_BIN_EXE_connect");

#[test]
fn two_programs_meet() {
    let waiting = Program::start(CONNECT, &[]);
    let contact = waiting.line();
    assert!(contact.starts_with("crust1"), "{contact}");
    let dialling = Program::start(CONNECT, &[&contact]);
    assert!(dialling.line().ends_with(" says: nice to meet you"));
    assert!(waiting.line().ends_with(" says: hello"));
    assert!(dialling.end().is_empty() && waiting.end().is_empty());
}

#[test]
fn it_is_the_short_program_that_it_is_meant_to_be() {
    let source = include_str!("../../src/bin/connect.rs");
    assert!(source.lines().count() < 60);
}
