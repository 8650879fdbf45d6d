use crate::support::Program;

#[test]
fn the_message_comes_back_over_each_scheme() {
    let lines = Program::start(env!("CARGO_BIN_EXE_echo"), &[]).end();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, scheme) in lines.iter().zip(["tcp", "quic"]) {
        assert!(line.starts_with(&format!("{scheme}: \"there and back\" in ")), "{line}");
    }
}
