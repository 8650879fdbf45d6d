use crust::IdentityFile;

use crate::{
    arguments::Common,
    events::Output,
    failure::Failure,
    setup::{self, Who},
};

/// Prints this peer's public key, making the key on first use.
pub(super) fn run(common: &Common, output: Output) -> Result<(), Failure> {
    let config = setup::config(common, Who::Known, output)?;
    let file = config.key_file().map_or_else(setup::default_key_file, |file| Ok(file.to_owned()))?;
    let key = IdentityFile::new(file).load_or_create()?.public_key();
    output.result(&key.to_string());
    Ok(())
}
