//! Running other programs from the top of the repository.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies one folder below the top")
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> Command {
    program(std::env::var_os("CARGO").as_deref().unwrap_or("cargo".as_ref()))
}

/// A command that runs at the top of the repository.
pub(crate) fn program(name: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    // Set by `cargo run` for this task; a cargo below must not believe that it builds xtask.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it with its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.stdin(Stdio::null()).status().with_context(|| shown(command))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs it and gives what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    stdout(command.stderr(Stdio::inherit()))
}

/// Runs a program that says much, and gives what it wrote to standard output; what it complains of is told if it fails.
pub(crate) fn captured(command: &mut Command) -> Result<String> {
    println!("$ {}", shown(command));
    stdout(command.stderr(Stdio::piped()))
}

/// What it wrote to standard output; an error says what it wrote to standard error, if that did not go elsewhere.
fn stdout(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| shown(command))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{}", format!("{} ended with {}\n{complaint}", shown(command), output.status).trim_end());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Installs a package of Debian's. Asks for no password: who may not install it hears so.
pub(crate) fn install(package: &str) -> Result<()> {
    let script = format!(
        "root=; [ \"$(id -u)\" = 0 ] || root='sudo -n'; $root apt-get update -q && \
         DEBIAN_FRONTEND=noninteractive $root apt-get install -y -q --no-install-recommends {package}"
    );
    run(program("sh").args(["-c", &script])).with_context(|| format!("apt-get install {package}"))
}

/// Whether it can be run and says that all is well; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words = program.file_name().into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
