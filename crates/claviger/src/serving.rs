//! A gateway behind its listeners, from the first connection to the drained end.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use claviger_env::Clock;
use claviger_format::random::Random;
use claviger_gateway::Gateway;
use claviger_gateway::admin::{AdminPages, serve_admin};
use claviger_gateway::config::Config;
use claviger_gateway::metrics;
use claviger_gateway::server::{self, ServeReport, ServerOptions, Workers};
use tokio::net::TcpListener;

use crate::signals::Shutdown;

/// Binds `address`.
///
/// # Errors
/// With what to do when it is taken.
pub(crate) async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("can't listen on {address} for {what}; choose another address or port"))
}

/// Serves S3 (and the admin pages, if configured) until `shutdown`.
///
/// # Errors
/// When TLS, the admin listener or the random source fail; never for a single connection.
pub(crate) async fn serve_gateway(
    gateway: Arc<Gateway>,
    config: &Config,
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    random: &dyn Random,
    shutdown: Shutdown,
) -> Result<ServeReport> {
    let tls = config.tls.as_ref().map(server::tls_config).transpose()?;
    let admin = match &config.admin {
        Some(admin) => Some(serve_admin_pages(&gateway, admin.listen, shutdown.clone()).await?),
        None => None,
    };
    let workers = Arc::new(Workers::start().context("no threads for clients' connections")?);
    let options = ServerOptions {
        limits: config.limits.clone(),
        clock,
        instance: draw(random)?,
        workers: Some(workers.clone()),
    };
    let report = server::serve(listener, gateway.clone(), options, tls, shutdown.wait()).await;
    let unfinished = gateway.settle().await;
    if unfinished > 0 {
        tracing::warn!(unfinished, "uploads were still being completed or aborted at the end");
    }
    if let Some(admin) = admin {
        admin.abort();
    }
    // What was still being done ran in their runtimes.
    drop(workers);
    Ok(report)
}

async fn serve_admin_pages(
    gateway: &Gateway,
    address: SocketAddr,
    shutdown: Shutdown,
) -> Result<tokio::task::JoinHandle<()>> {
    let metrics = metrics::install()?;
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        // Empties the histograms' buffers when nobody scrapes.
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    let listener = bind(address, "health and metrics").await?;
    let pages =
        AdminPages { readiness: gateway.readiness(), render_metrics: Box::new(move || metrics.render()) };
    tracing::info!(address = %listener.local_addr()?, "health and metrics");
    Ok(tokio::spawn(serve_admin(listener, Arc::new(pages), shutdown.wait())))
}

fn draw(random: &dyn Random) -> Result<u64> {
    let mut bytes = [0; 8];
    random.fill(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
