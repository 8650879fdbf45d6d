use crate::{
    arguments::Common,
    events::Output,
    failure::Failure,
    setup::{self, Who},
};

/// Prints the effective configuration: the defaults, the file, the flags.
pub(super) fn run(common: &Common, output: Output) -> Result<(), Failure> {
    let config = setup::config(common, Who::Known, output)?;
    output.result(config.to_toml().trim_end());
    Ok(())
}
