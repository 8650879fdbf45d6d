//! The program `kv`, one process a node, in each of its threadings.

mod attacks;
mod capture;
mod figures;
mod node;
mod onion;
mod puppet;
mod scenarios;

use node::Node;

/// What a test is run for, by name, and how nodes are told.
const CONFIGURATIONS: [(&str, &[&str]); 3] = [
    ("threads, Arc", &["--threading", "threads"]),
    ("threads, Rc", &["--threading", "threads", "--references", "rc"]),
    ("local", &["--threading", "local"]),
];

/// Tests that give the same results in every configuration.
macro_rules! in_each_configuration {
    ($($name:ident),+ $(,)?) => {
        mod with_threads_and_arc {
            $(#[test] fn $name() { let _ = super::$name(crate::kv::CONFIGURATIONS[0].1); })+
        }
        mod with_threads_and_rc {
            $(#[test] fn $name() { let _ = super::$name(crate::kv::CONFIGURATIONS[1].1); })+
        }
        mod in_one_thread {
            $(#[test] fn $name() { let _ = super::$name(crate::kv::CONFIGURATIONS[2].1); })+
        }
    };
}
use in_each_configuration;
