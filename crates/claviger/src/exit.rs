//! How a command ends: 0 done, 1 failed, 2 wrong usage or configuration.

use std::process::ExitCode;

/// A command's failure and the code that tells scripts which kind it is.
#[derive(Debug)]
pub(crate) struct Exit {
    code: u8,
    error: anyhow::Error,
}

impl Exit {
    /// The command line or a configuration file is wrong: trying again without a change is useless.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 2, error: error.into() }
    }

    /// Something failed on the way.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 1, error: error.into() }
    }

    /// The same error, as wrong usage.
    pub(crate) fn into_usage(self) -> Self {
        Self { code: 2, ..self }
    }

    /// Says what happened on standard error and gives the process's exit code.
    #[allow(clippy::print_stderr, reason = "the last word of a command is for its user, not for a log")]
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {:#}", self.error);
        ExitCode::from(self.code)
    }
}

impl From<anyhow::Error> for Exit {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(error)
    }
}
