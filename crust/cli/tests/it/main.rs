//! The built command, as a user runs it.
