//! The release build. What the compiler lays out for speed and what for size it takes from a profile: how often each piece of the
//! program ran under the load of the benchmark (docs/decisions/040).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{cargo, output, program, root, run, succeeds, target_dir};

/// Counts of an instrumented build under load, as LLVM keeps them. They fit the compiler that made them, and only that.
const PROFILE: &str = "deploy/profile/claviger.profdata";
/// Which one that was, as `rustc --version` says it.
const PROFILE_RUSTC: &str = "deploy/profile/rustc";

/// The oldest `llvm-profdata` that reads what today's compiler writes, and the newest that was ever looked for.
const LLVM_VERSIONS: std::ops::RangeInclusive<u32> = 19..=30;

/// What a profile is made of: all cases and, for the key service, epochs that are opened one after the other.
const LOADS: [&[&str]; 2] = [
    &["run", "--rounds", "1", "--seconds", "2"],
    &[
        "scale",
        "--rounds",
        "1",
        "--seconds",
        "1",
        "--only",
        "get-by-epochs",
        "--epochs-max",
        "100",
        "--only",
        "list-by-names",
        "--names-max",
        "10000",
    ],
];

/// Crates whose code takes the same time whatever the secret is. With counts of their branches a compiler may make a branch of what
/// was written without one, so they get none.
const CONSTANT_TIME: &[&str] = &[
    "aes",
    "aes_gcm",
    "aes_siv",
    "chacha20",
    "cmac",
    "cmov",
    "ctr",
    "ctutils",
    "curve25519_dalek",
    "dbl",
    "ed25519_dalek",
    "ghash",
    "ml_kem",
    "module_lattice",
    "polyval",
    "subtle",
    "vsss_rs",
    "x25519_dalek",
    "x_wing",
];

/// Builds these packages as they are released, into `target/release`.
///
/// # Errors
/// When something can't be built.
pub(crate) fn build(packages: &[&str]) -> Result<()> {
    let made_with = std::fs::read_to_string(root().join(PROFILE_RUSTC)).context(PROFILE_RUSTC)?;
    let rustc = rustc_version()?;
    if made_with.trim() != rustc {
        println!(
            "note: {PROFILE} was made with {}, and this is {rustc}: without effect, so requests of a few KiB take half as much \
             processor time again. `cargo xtask profile` makes a new one.",
            made_with.trim()
        );
    }
    let profile = beside_the_build()?;
    run(release(&mut cargo(), packages).env("RUSTFLAGS", flags("-Cprofile-use=", &profile)))
}

/// The profile under a name that changes with what is in it, where cargo builds: cargo looks at flags, not at files that they
/// name, and a build folder that several clones share stays of use.
fn beside_the_build() -> Result<PathBuf> {
    let profile = std::fs::read(root().join(PROFILE)).context(PROFILE)?;
    let mut hasher = DefaultHasher::new();
    profile.hash(&mut hasher);
    let copy = target_dir().join(format!("claviger-{:016x}.profdata", hasher.finish()));
    if !copy.exists() {
        std::fs::create_dir_all(target_dir())?;
        std::fs::write(&copy, profile).with_context(|| copy.display().to_string())?;
    }
    Ok(copy)
}

/// Makes a new profile: builds Claviger so that it counts, puts it under load, and writes what it counted.
///
/// # Errors
/// When something can't be built, installed or run.
pub(crate) fn profile() -> Result<bool> {
    let llvm_profdata = llvm_profdata()?;
    let counts = target_dir().join("profile-counts");
    let instrumented = target_dir().join("profile");
    let mut counting = cargo();
    release(&mut counting, &["claviger"]).arg("--target-dir").arg(&instrumented);
    run(counting.env("RUSTFLAGS", flags("-Cprofile-generate=", &counts)))?;
    run(release(&mut cargo(), &["claviger-bench"]))?;
    // What ran while it was built has counted too.
    if counts.exists() {
        std::fs::remove_dir_all(&counts)?;
    }
    for load in LOADS {
        let mut bench = program(target_dir().join("release/claviger-bench"));
        bench.args(load).args(["--without-nginx", "--claviger"]).arg(instrumented.join("release/claviger"));
        run(bench.arg("--out").arg(target_dir().join("profile-bench")))?;
    }
    let profile = root().join(PROFILE);
    // As mangled: `_ZN6subtle9black_box17h…`, or `$LT$subtle..Choice$u20$as…` within another's name.
    let without = format!("--no-function=(^|[^a-z_])({})(\\.\\.|[0-9])", CONSTANT_TIME.join("|"));
    run(program(llvm_profdata).args(["merge", "--sparse", &without, "--output"]).arg(&profile).arg(&counts))?;
    std::fs::write(root().join(PROFILE_RUSTC), rustc_version()? + "\n")?;
    println!("{PROFILE} is new. Measure with `cargo xtask bench` before it is committed.");
    Ok(true)
}

fn release<'c>(cargo: &'c mut Command, packages: &[&str]) -> &'c mut Command {
    cargo.args(["build", "--release", "--locked"]);
    cargo.args(packages.iter().flat_map(|package| ["--package", package]))
}

/// The flags that the environment asks for, and one more.
fn flags(flag: &str, path: &Path) -> std::ffi::OsString {
    let mut flags = std::env::var_os("RUSTFLAGS").unwrap_or_default();
    flags.push(" ");
    flags.push(flag);
    flags.push(path);
    flags
}

fn rustc_version() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Ok(output(program(rustc).arg("--version"))?.trim().to_owned())
}

/// The toolchain's own (component `llvm-tools`), else the system's; Debian's is installed where it may be.
fn llvm_profdata() -> Result<PathBuf> {
    if let Some(tool) = found()? {
        return Ok(tool);
    }
    let package = format!("llvm-{}", LLVM_VERSIONS.start());
    run(program("apt-get").args(["install", "-y", "--no-install-recommends", &package])).with_context(
        || format!("llvm-profdata is missing: rustup component add llvm-tools, or apt-get install {package}"),
    )?;
    found()?.with_context(|| format!("{package} has no llvm-profdata"))
}

fn found() -> Result<Option<PathBuf>> {
    let sysroot = PathBuf::from(output(program("rustc").args(["--print", "sysroot"]))?.trim());
    let mut candidates = Vec::new();
    for target in std::fs::read_dir(sysroot.join("lib/rustlib"))? {
        candidates.push(target?.path().join("bin/llvm-profdata"));
    }
    candidates.extend(LLVM_VERSIONS.map(|version| PathBuf::from(format!("llvm-profdata-{version}"))));
    Ok(candidates.into_iter().find(|tool| succeeds(program(tool).arg("--version"))))
}
