//! Cargo subcommands that a fresh machine lacks, installed into `target/tools`.

use std::path::PathBuf;

use anyhow::Result;

use crate::command::{cargo, run, succeeds, target_dir};

/// A program from the crates registry.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    arguments: &'static [&'static str],
}

/// Licences, bans, sources, advisories.
pub(crate) const CARGO_DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", arguments: &["--no-default-features"] };
/// Runs libFuzzer targets.
pub(crate) const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2", arguments: &[] };

impl Tool {
    /// The path of the program, which is built first if it isn't there.
    ///
    /// It is built without optimisation: it runs for seconds and is built once per machine.
    pub(crate) fn install(&self) -> Result<PathBuf> {
        let root = target_dir().join("tools");
        let path = root.join("bin").join(self.name);
        let stamp = root.join(format!("{}-{}", self.name, self.version));
        if stamp.exists() && succeeds(std::process::Command::new(&path).arg("--version")) {
            return Ok(path);
        }
        let mut install = cargo();
        install.args(["install", "--locked", "--debug", "--quiet", "--force", "--root"]).arg(&root);
        // Its own target folder: the flags of the project must not be compiled into it, nor its artefacts mix.
        install.env("CARGO_TARGET_DIR", root.join("build"));
        install.args(["--version", self.version]).args(self.arguments).arg(self.name);
        run(&mut install)?;
        // The artefacts are large and never needed again; failing to remove them costs only space.
        drop(std::fs::remove_dir_all(root.join("build")));
        std::fs::write(stamp, "")?;
        Ok(path)
    }
}
