//! The release build. What the compiler lays out for speed and what for size it takes from a profile: how often each piece of the
//! program ran under the load of the benchmark (docs/decisions/040). Then the blocks of the linked program are put in order
//! (docs/decisions/043).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{cargo, install, output, program, root, run, succeeds, target_dir};
use crate::layout::{Bolt, LINK_ARG};

/// The package and the program that are released.
const RELEASED: &str = "claviger";
/// What measures it.
const BENCH: &str = "claviger-bench";

/// Counts of an instrumented build under load, as LLVM keeps them. They fit the compiler that made them, and only that.
const PROFILE: &str = "deploy/profile/claviger.profdata";
/// Which one that was, as `rustc --version` says it.
const PROFILE_RUSTC: &str = "deploy/profile/rustc";

/// The oldest LLVM whose tools read what today's compiler writes and know the options that they are given, and the newest that was
/// ever looked for.
pub(crate) const LLVM_VERSIONS: std::ops::RangeInclusive<u32> = 19..=30;

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
/// was written without one, so they get none, and stay where the compiler put them.
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

/// Builds the program as it is released, into `target/release`, and gives its path.
///
/// # Errors
/// When it can't be built.
pub(crate) fn build() -> Result<PathBuf> {
    let made_with = std::fs::read_to_string(root().join(PROFILE_RUSTC)).context(PROFILE_RUSTC)?;
    let rustc = rustc_version()?;
    if made_with.trim() != rustc {
        println!(
            "note: {PROFILE} was made with {}, and this is {rustc}: without effect, so requests of a few KiB take half as much \
             processor time again. `cargo xtask profile` makes a new one.",
            made_with.trim()
        );
    }
    match Bolt::install() {
        Ok(bolt) => {
            let linked = link(&["--", LINK_ARG])?;
            bolt.order(&linked)?;
            Ok(linked)
        }
        Err(error) => {
            println!("note: without BOLT small requests take some percent more processor time: {error:#}");
            link(&[])
        }
    }
}

/// Builds the program with the profile, and gives its path.
fn link(arguments: &[&str]) -> Result<PathBuf> {
    let mut rustc = cargo();
    rustc.args(["rustc", "--release", "--locked", "--package", RELEASED, "--bin", RELEASED]);
    with_profile(rustc.args(arguments), RELEASED)
}

/// Builds the benchmark, and gives its path.
///
/// # Errors
/// When it can't be built.
pub(crate) fn build_bench() -> Result<PathBuf> {
    with_profile(release(&mut cargo(), BENCH), BENCH)
}

/// Runs cargo, which makes the program of this name.
fn with_profile(cargo: &mut Command, name: &str) -> Result<PathBuf> {
    run(cargo.env("RUSTFLAGS", flags("-Cprofile-use=", &beside_the_build()?)))?;
    Ok(target_dir().join("release").join(name))
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

/// Makes a new profile: builds Claviger so that it counts, puts it under load, and writes what it counted; then the same with the
/// program that this profile gives, for the order of its blocks.
///
/// # Errors
/// When something can't be built, installed or run.
pub(crate) fn profile() -> Result<bool> {
    let (llvm_profdata, bolt) = (llvm_profdata()?, Bolt::install()?);
    let counts = target_dir().join("profile-counts");
    let instrumented = target_dir().join("profile");
    let mut counting = cargo();
    release(&mut counting, RELEASED).arg("--target-dir").arg(&instrumented);
    run(counting.env("RUSTFLAGS", flags("-Cprofile-generate=", &counts)))?;
    let bench = build_bench()?;
    // What ran while it was built has counted too.
    if counts.exists() {
        std::fs::remove_dir_all(&counts)?;
    }
    put_under_load(&bench, &instrumented.join("release").join(RELEASED))?;
    let profile = root().join(PROFILE);
    // What `is_constant_time` says, in the tool's own words.
    let without = format!("--no-function=(^|[^a-z_])({})(\\.\\.|[0-9])", CONSTANT_TIME.join("|"));
    run(program(llvm_profdata).args(["merge", "--sparse", &without, "--output"]).arg(&profile).arg(&counts))?;
    std::fs::write(root().join(PROFILE_RUSTC), rustc_version()? + "\n")?;
    let linked = link(&["--", LINK_ARG])?;
    bolt.count(&linked, is_constant_time, |counting| put_under_load(&bench, counting))?;
    println!("deploy/profile is new. Measure with `cargo xtask bench` before it is committed.");
    Ok(true)
}

fn put_under_load(bench: &Path, counting: &Path) -> Result<()> {
    for load in LOADS {
        let mut bench = program(bench);
        bench.args(load).args(["--without-nginx", "--claviger"]).arg(counting);
        run(bench.arg("--out").arg(target_dir().join("profile-bench")))?;
    }
    Ok(())
}

/// Whether the function with this mangled name is of one of [`CONSTANT_TIME`]: `_ZN6subtle9black_box17h…`, or
/// `$LT$subtle..Choice$u20$as…` within another's name.
fn is_constant_time(symbol: &str) -> bool {
    CONSTANT_TIME.iter().any(|name| {
        symbol.match_indices(name).any(|(at, _)| {
            let (before, after) = (&symbol[..at], &symbol[at + name.len()..]);
            !before.ends_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && (after.starts_with("..") || after.starts_with(|c: char| c.is_ascii_digit()))
        })
    })
}

fn release<'c>(cargo: &'c mut Command, package: &str) -> &'c mut Command {
    cargo.args(["build", "--release", "--locked", "--package", package])
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
    install(&package).context("llvm-profdata is missing: rustup component add llvm-tools")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_crates_that_take_the_same_time_are_known_by_their_mangled_names() {
        for symbol in [
            "_ZN6subtle9black_box17h0123456789abcdefE",
            "_ZN58_$LT$subtle..Choice$u20$as$u20$core..ops..bit..BitAnd$GT$6bitand17h0123456789abcdefE/1",
            "_ZN4core3ops8function5impls28_$LT$aes_gcm..Aes256$GT$17h0123456789abcdefE",
        ] {
            assert!(is_constant_time(symbol), "{symbol}");
        }
        for symbol in [
            "_ZN4sha26sha2567x86_sha8compress17h3dfc8749111ca1b1E",
            "_ZN87_$LT$rustls..crypto..aws_lc_rs..tls13..Aes128GcmAead$u20$as$u20$x$GT$4open17h0123456789abcdefE",
            "_ZN9my_subtle4more17h0123456789abcdefE",
        ] {
            assert!(!is_constant_time(symbol), "{symbol}");
        }
    }
}
