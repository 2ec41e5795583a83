//! A double of a provider as a process, for tests in other languages: `store_double NAME`. The first line that it
//! prints is its endpoint, the second its region, then its access key id and secret. It ends with its standard input.
//! Without a name it lists the doubles that there are.
#![allow(clippy::print_stdout, reason = "that is how it talks")]

use std::io::Read as _;

use claviger_testkit::store_double::{ACCESS_KEY_ID, RULES, SECRET_ACCESS_KEY, StoreDouble, named};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(name) = std::env::args().nth(1) else {
        for rules in RULES {
            println!("{}", rules.name);
        }
        return Ok(());
    };
    let rules = named(&name).ok_or("there is no double of that name")?;
    let double = StoreDouble::start(rules).await?;
    println!("{}\n{}\n{ACCESS_KEY_ID}\n{SECRET_ACCESS_KEY}", double.endpoint(), rules.region);
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await??;
    Ok(())
}
