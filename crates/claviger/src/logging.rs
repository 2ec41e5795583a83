//! The log, on standard error: for people on a terminal, as JSON lines everywhere else.

mod buffered;
mod json;

use std::io::IsTerminal;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use buffered::Buffered;
use json::JsonLines;

const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

static BUFFERED: OnceLock<Buffered> = OnceLock::new();

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Human on a terminal, else JSON
    Auto,
    /// One JSON object per line
    Json,
    /// Short lines for people
    Human,
}

/// Sets the process's log up. `level` is a filter such as `info` or `info,claviger_gateway=debug`. Lines of JSON are written
/// together where `buffers`; [`flush`] is for the end then.
///
/// # Errors
/// When the filter is not one.
pub(crate) fn init(format: LogFormat, level: &str, buffers: bool) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level)?;
    let on_terminal = std::io::stderr().is_terminal();
    let human = match format {
        LogFormat::Auto => on_terminal,
        LogFormat::Json => false,
        LogFormat::Human => true,
    };
    let registry = tracing_subscriber::registry().with(filter);
    if human {
        let colours = on_terminal && std::env::var_os("NO_COLOR").is_none();
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
        registry.with(layer.with_target(false).compact()).try_init()?;
    } else {
        let layer = tracing_subscriber::fmt::layer().event_format(JsonLines);
        if buffers {
            let buffered = Buffered::stderr()?;
            let _ = BUFFERED.set(buffered.clone());
            registry.with(layer.with_writer(buffered)).try_init()?;
        } else {
            registry.with(layer.with_writer(std::io::stderr)).try_init()?;
        }
    }
    log_panics();
    Ok(())
}

/// Writes what is still waiting to be; gives up after a second if nobody takes it.
pub(crate) fn flush() {
    let Some(buffered) = BUFFERED.get() else { return };
    let (done, is_done) = mpsc::channel();
    let flushing = std::thread::Builder::new().spawn(move || {
        buffered.flush();
        // Whoever waited may have given up.
        let _ = done.send(());
    });
    if flushing.is_ok() {
        let _ = is_done.recv_timeout(FLUSH_PATIENCE);
    }
}

/// A panic becomes a line of the log like any other failure. Its message is the programmer's text: secrets have no
/// `Debug` that could bring them into it.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: {message}");
    }));
}
