use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use claviger_env::{OsRandom, SystemClock};
use claviger_keyservice::Config;
use claviger_keyservice::custody::unlock::hsm::{self, HsmConfig};

use crate::exit::Exit;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make the key that the table `[pkcs11]` names in the HSM: AES-256 or RSA-3072, never to leave it
    MakeKey(Arguments),
    /// Wrap and unwrap something of no use with that key, to see that the HSM does what it must
    Check(Arguments),
}

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The service's configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::MakeKey(arguments) => {
            let config = config(&arguments)?;
            hsm::make_key(&config).map_err(Exit::failed)?;
            check(&config)?;
            say!(
                "Key {} is made in token {}. Back it up as the HSM's vendor says.",
                config.key,
                config.token
            );
            say!("Without it the service can't be unlocked; only recovery shares are left then.");
        }
        Command::Check(arguments) => {
            let config = config(&arguments)?;
            check(&config)?;
            say!("Token {}, key {}: wraps and unwraps.", config.token, config.key);
        }
    }
    Ok(())
}

fn config(arguments: &Arguments) -> Result<HsmConfig, Exit> {
    let config = Config::load(&arguments.config).map_err(Exit::usage)?;
    config.pkcs11.ok_or_else(|| Exit::usage(anyhow!("{} has no [pkcs11]", arguments.config.display())))
}

fn check(config: &HsmConfig) -> Result<(), Exit> {
    let random = OsRandom::new(Arc::new(SystemClock)).map_err(Exit::failed)?;
    hsm::try_out(config, &random).map_err(Exit::failed)
}
