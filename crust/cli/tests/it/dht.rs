use mainline::Testnet;

use crate::support::Home;

#[test]
fn a_key_is_enough_where_both_sides_use_the_dht() {
    let testnet = Testnet::builder(10).build().unwrap();
    let home = Home::new();
    let entry = testnet.bootstrap[0].as_str();
    let flags = ["--no-lan", "--dht", "--dht-bootstrap", entry];

    let listen = ["listen", "--once", "--listen", "quic://127.0.0.1:0"];
    let mut listening = home.start(&[&listen[..], &flags].concat());
    let id = listening.event("listening")["id"].as_str().unwrap().to_owned();
    let told = listening.event("dht");
    assert_eq!(told["state"], "published");
    assert!(told["nodes"].as_u64().unwrap() > 0, "{told}");

    let mut connecting = home.start(&[&["connect", &id, "-v", "--deadline", "30s"][..], &flags].concat());
    let trace = connecting.event("trace");
    assert!(trace["dht"].as_str().unwrap().contains(": addresses 1, "), "{trace}");
    connecting.write(b"found you");
    listening.close_stdin();
    connecting.end().assert_done();
    let ended = listening.end();
    assert_eq!(ended.assert_done().data, b"found you");

    let doctor = home.run(&[&["doctor"][..], &flags].concat());
    assert_eq!(doctor.assert_done().event("doctor")["dht"], "answers");
    let wrong = home.run(&["id", "--dht-bootstrap", entry]);
    assert_eq!(wrong.status, Some(2), "it is of no use without --dht: {wrong:#?}");
}
