//! The embedded provider by itself, for looking at and for testing clients against.
//!
//! `cargo run -p claviger-provider --example provider -- --dir DIR --listen 127.0.0.1:9000 [--ready-file F]`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use claviger_env::SystemClock;
use claviger_provider::{Credentials, Provider};

/// An S3 store that keeps plain files.
#[derive(Parser)]
struct Options {
    /// Folder for the buckets.
    #[arg(long)]
    dir: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: String,
    /// Region that requests have to be signed for.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Access key id of clients.
    #[arg(long, default_value = "provider")]
    access_key_id: String,
    /// Secret of clients.
    #[arg(long, default_value = "provider-secret")]
    secret_access_key: String,
    /// File that gets the endpoint's URL once it answers.
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let credentials = Credentials::new(options.access_key_id, options.secret_access_key);
    let provider = Provider::open(&options.dir, credentials, &options.region, Arc::new(SystemClock))?;
    let listener = tokio::net::TcpListener::bind(&options.listen).await?;
    if let Some(ready_file) = options.ready_file {
        let partial = ready_file.with_extension("partial");
        std::fs::write(&partial, format!("http://{}\n", listener.local_addr()?))?;
        std::fs::rename(partial, ready_file)?;
    }
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    provider.serve(listener, interrupted).await?;
    Ok(())
}
