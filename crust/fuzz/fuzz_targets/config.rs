//! Any text as a configuration file.
#![no_main]

use crust::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::from_toml(text) {
        Ok(config) => {
            let again = Config::from_toml(&config.to_toml()).expect("what is printed can be read");
            assert_eq!(format!("{again:?}"), format!("{config:?}"));
        }
        Err(error) => assert!(error.to_string().starts_with("configuration:")),
    }
});
