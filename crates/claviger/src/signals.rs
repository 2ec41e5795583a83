//! Ctrl-C and SIGTERM.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Exit code of a process ended by a second signal, as shells report SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Tells everyone who holds a clone that the process was asked to end.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Resolves once the process was asked to end.
    pub(crate) async fn wait(mut self) {
        // An error means that the listener for signals is gone, and with it the runtime.
        drop(self.0.wait_for(|&asked| asked).await);
    }
}

/// Listens for SIGINT and SIGTERM from now on. The first asks for a clean end, the second ends the process at once.
///
/// # Errors
/// When the handlers can't be installed.
pub(crate) fn listen() -> Result<Shutdown> {
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let (ask, asked) = watch::channel(false);
    tokio::spawn(async move {
        next(&mut interrupt, &mut terminate).await;
        tracing::info!("asked to end; finishing what is running (again to end at once)");
        ask.send_replace(true);
        next(&mut interrupt, &mut terminate).await;
        crate::logging::flush();
        std::process::exit(EXIT_INTERRUPTED);
    });
    Ok(Shutdown(asked))
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
