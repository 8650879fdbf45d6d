//! Two ends of a connection whose NATs, networks and neighbours are not to be trusted, in virtual time.

mod hostile;
mod late;
mod moving;
mod world;
