//! The log, on standard error: for people on a terminal, as JSON lines everywhere else.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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

/// Sets the process's log up. `level` is a filter such as `info` or `info,claviger_gateway=debug`.
///
/// # Errors
/// When the filter is not one.
pub(crate) fn init(format: LogFormat, level: &str) -> anyhow::Result<()> {
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
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        registry
            .with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false))
            .try_init()?;
    }
    log_panics();
    Ok(())
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
