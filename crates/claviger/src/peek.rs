//! `claviger peek`: one object as its user sees it, beside what the provider has.

#![allow(clippy::print_stdout, reason = "the picture is the command's result")]

mod picture;
mod view;

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use claviger_s3::sigv4::SecretAccessKey;

use crate::demo::folder::{KeyPair, Run, load_state};
use crate::exit::Exit;
use crate::s3_client::{Account, Reply, get_beginning, system_clock};
use view::View;

/// Bytes of each body that are looked at.
const BYTES_SHOWN: usize = 160;
/// Columns where the output is no terminal.
const WIDTH_DEFAULT: u16 = 100;

/// Show one object of a running demo: what you see beside what the provider has
///
/// Asks the demo's endpoint and the store behind it for the same object and shows headers and first bytes of both
/// answers.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The object, as s3://BUCKET/KEY
    object: String,

    /// Folder of the demo
    #[arg(long, default_value = crate::demo::DIR_DEFAULT, value_name = "DIR")]
    dir: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// When no demo runs, or the object is not there.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Exit> {
    let (bucket, key) = parse(&arguments.object).map_err(Exit::usage)?;
    let state = load_state(&arguments.dir)?;
    let Some((run, user)) = state.and_then(|state| Some((state.run?, state.user))) else {
        let dir = arguments.dir.display();
        return Err(Exit::usage(anyhow!(
            "no demo has run in {dir}; start one with: claviger demo --dir {dir}"
        )));
    };
    let (yours, theirs) = both_replies(&run, &user, bucket, key).await?;
    if !yours.status.is_success() && !theirs.status.is_success() {
        let object = &arguments.object;
        return Err(Exit::failed(anyhow!(
            "{object}: you get {}, the provider says {}",
            yours.status,
            theirs.status
        )));
    }
    let views = [View::of_user(&yours, bucket, key), View::of_provider(&theirs, bucket, key)];
    let width = terminal_size::terminal_size().map_or(WIDTH_DEFAULT, |(width, _)| width.0);
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print!("{}", picture::draw(&views, usize::from(width), colours));
    if run.embedded {
        println!(
            "  The provider's files lie under {}",
            arguments.dir.join("provider").join(bucket).display()
        );
    }
    if !yours.status.is_success() {
        return Err(Exit::failed(anyhow!("{} answered {}", run.endpoint, yours.status)));
    }
    Ok(())
}

async fn both_replies(run: &Run, user: &KeyPair, bucket: &str, key: &str) -> Result<(Reply, Reply)> {
    let clock = system_clock();
    let yours = account(&run.endpoint, &run.region, user);
    let theirs = account(&run.upstream, &run.upstream_region, &run.upstream_key);
    tokio::try_join!(
        get_beginning(&yours, bucket, key, BYTES_SHOWN, &*clock),
        get_beginning(&theirs, bucket, key, BYTES_SHOWN, &*clock),
    )
}

fn account(endpoint: &str, region: &str, key: &KeyPair) -> Account {
    Account {
        endpoint: endpoint.to_owned(),
        region: region.to_owned(),
        access_key_id: key.access_key_id.clone(),
        secret: SecretAccessKey::new(key.secret_access_key.as_str()),
        session_token: key.session_token.clone(),
    }
}

fn parse(object: &str) -> Result<(&str, &str)> {
    match object.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) {
        Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => Ok((bucket, key)),
        _ => bail!("{object:?} is not of the form s3://BUCKET/KEY"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_aws_cli_names_them() {
        assert_eq!(parse("s3://bkt/a/b c.txt").unwrap(), ("bkt", "a/b c.txt"));
        assert_eq!(parse("s3://bkt//x").unwrap(), ("bkt", "/x"));
        for wrong in ["bkt/key", "s3://bkt", "s3://bkt/", "s3:///key", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
