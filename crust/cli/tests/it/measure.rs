use std::time::{Duration, Instant};

use crate::support::{Home, SCHEMES};

#[test]
fn perf_measures_every_figure_over_either_scheme() {
    for scheme in SCHEMES {
        let home = Home::new();
        let (server, contact) = home.serve(scheme, &["perf", "--serve"]);
        let measured = home.run(&["perf", &contact, "--only", scheme]);
        let event = measured.assert_done().event("perf");
        for field in ["connect_ms", "rtt_p50_us", "rtt_p99_us", "up_bytes_per_s", "down_bytes_per_s"] {
            assert!(event[field].as_f64().is_some_and(|figure| figure > 0.0), "{field}: {event}");
        }
        assert!(event["rtt_p50_us"].as_f64() <= event["rtt_p99_us"].as_f64());
        assert_eq!(event["transport"], scheme);
        assert_eq!(measured.events.len(), 2, "one connected, one perf: {measured:#?}");
        server.interrupt();
        server.wait().assert_done();
    }
}

#[test]
fn the_demo_holds_in_every_step() {
    let home = Home::new();
    let started = Instant::now();
    let output = home.command().arg("demo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    for scheme in SCHEMES {
        assert!(text.contains(&format!("{scheme}: another found it by its beacon and connected")), "{text}");
    }
    assert_eq!(text.matches("verified").count(), SCHEMES.len(), "{text}");
    assert!(!home.path("data").exists(), "the user's own key stays out of it");
}
