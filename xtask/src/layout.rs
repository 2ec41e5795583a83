//! Where the blocks of the linked program lie. A compiler orders each function by itself; BOLT orders the blocks of the whole
//! program, by counts of that program (docs/decisions/043).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{captured, install, output, program, root, target_dir};
use crate::release::LLVM_VERSIONS;

/// How often each block ran, by function and by what its code looks like: what has changed since is matched as far as it goes.
const COUNTS: &str = "deploy/profile/claviger.bolt.yaml";

/// What ran less often than this under the load of the benchmark is not worth a line.
const COUNT_MIN: u64 = 1_000;

/// What has to be said to rustc so that blocks can be moved afterwards: the linker leaves in the program what it has resolved.
pub(crate) const LINK_ARG: &str = "-Clink-arg=-Wl,--emit-relocs";

/// How the blocks are put in order.
const ORDER: [&str; 8] = [
    "-infer-stale-profile",
    "-reorder-blocks=ext-tsp",
    "-reorder-functions=cdsort",
    "-split-functions",
    "-split-all-cold",
    "-split-eh",
    "-update-debug-sections",
    // It would hold the command line, and with it paths of the machine that built.
    "-bolt-info=0",
];

/// BOLT, and what adds up counts of several processes.
pub(crate) struct Bolt {
    bolt: PathBuf,
    merge: PathBuf,
}

impl Bolt {
    /// What there is, else Debian's.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn install() -> Result<Self> {
        ensure!(cfg!(all(target_os = "linux", target_arch = "x86_64")), "the counts are of Linux on x86-64");
        if let Some(found) = Self::found() {
            return Ok(found);
        }
        let package = format!("bolt-{}", LLVM_VERSIONS.start());
        install(&package)?;
        Self::found().with_context(|| format!("{package} has no llvm-bolt"))
    }

    /// Debian's folders first: called by another name, the tool does not find its own library.
    fn found() -> Option<Self> {
        let folders = LLVM_VERSIONS.map(|version| format!("/usr/lib/llvm-{version}/bin/"));
        let tools = folders.chain([String::new()]).map(|folder| Self {
            bolt: format!("{folder}llvm-bolt").into(),
            merge: format!("{folder}merge-fdata").into(),
        });
        tools.into_iter().find(|tools| {
            let version = output(program(&tools.bolt).arg("--version"));
            version.is_ok_and(|version| llvm_version(&version) >= Some(*LLVM_VERSIONS.start()))
        })
    }

    /// Puts the blocks of this program, which was linked with [`LINK_ARG`], in order.
    ///
    /// # Errors
    /// When that can't be done; the program is as it was.
    pub(crate) fn order(&self, linked: &Path) -> Result<()> {
        let ordered = linked.with_extension("ordered");
        let said = captured(&mut self.ordering(linked, &ordered, &root().join(COUNTS)))?;
        for line in said.lines().filter(|line| line.contains("profile")) {
            println!("{line}");
        }
        std::fs::rename(&ordered, linked).with_context(|| linked.display().to_string())
    }

    /// Counts the blocks of this program under a load, and writes [`COUNTS`]. Functions for which `stays` holds, and what is not
    /// written in Rust (but for the allocator), are left out: they stay where they are.
    ///
    /// # Errors
    /// When something can't be run or written.
    pub(crate) fn count(
        &self,
        linked: &Path,
        stays: impl Fn(&str) -> bool,
        load: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let dir = target_dir().join("profile-blocks");
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        let counting = dir.join("claviger");
        // A file for each process, since the load runs many.
        let mut instrument = self.command(linked, &counting);
        instrument.args(["-instrument", "--instrumentation-file-append-pid"]);
        captured(instrument.arg(flag("--instrumentation-file=", &dir.join("counts"))))?;
        load(&counting)?;
        let (chosen, written) = (dir.join("chosen"), dir.join("written"));
        std::fs::write(&chosen, choose(&self.merged(&dir)?, stays)?)?;
        captured(self.ordering(linked, &dir.join("ordered"), &chosen).arg(flag("-w=", &written)))?;
        std::fs::write(root().join(COUNTS), without_path(&std::fs::read_to_string(written)?))?;
        Ok(())
    }

    fn merged(&self, dir: &Path) -> Result<String> {
        let mut command = program(&self.merge);
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new("fdata")) {
                command.arg(path);
            }
        }
        captured(&mut command)
    }

    fn ordering(&self, from: &Path, to: &Path, counts: &Path) -> Command {
        let mut command = self.command(from, to);
        command.args(ORDER).arg("-data").arg(counts);
        command
    }

    fn command(&self, from: &Path, to: &Path) -> Command {
        let mut command = program(&self.bolt);
        command.arg(from).arg("-o").arg(to);
        command
    }
}

/// The first number of the version that a tool of LLVM's tells.
fn llvm_version(told: &str) -> Option<u32> {
    told.split_once("LLVM version ")?.1.split('.').next()?.parse().ok()
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(path);
    flag
}

/// Of counted jumps (`1 from offset 1 to offset mispredicted times`) those that are worth a line and whose both ends may be moved.
///
/// # Errors
/// When nothing is left, as if the tool wrote something else.
fn choose(counted: &str, stays: impl Fn(&str) -> bool) -> Result<String> {
    let moves =
        |symbol: &str| ["_ZN", "_R", "_rjem"].iter().any(|start| symbol.starts_with(start)) && !stays(symbol);
    let is_chosen = |line: &&str| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, from, _, _, to, _, _, times] => {
            times.parse().is_ok_and(|times: u64| times >= COUNT_MIN) && moves(from) && moves(to)
        }
        _ => false,
    };
    let chosen: String = counted.lines().filter(is_chosen).flat_map(|line| [line, "\n"]).collect();
    ensure!(!chosen.is_empty(), "nothing was counted {COUNT_MIN} times");
    Ok(chosen)
}

/// The counts without the place of the program that they are of.
fn without_path(counts: &str) -> String {
    let line = |line: &str| match line.split_once("binary-name:") {
        Some((before, _)) => format!("{before}binary-name:     claviger\n"),
        None => format!("{line}\n"),
    };
    counts.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rare_what_stays_and_what_is_no_rust_is_not_chosen() {
        let often = "1 _ZN1a1b17h0E/1 2a 1 _rjem_malloc/1 0 0 1000\n";
        let others = "1 _ZN1a1b17h0E/1 2a 1 _ZN1a1c17h0E/1 0 7 999\n\
                      1 _ZN6subtle9black_box17h0E/1 2a 1 _ZN1a1c17h0E/1 0 0 5000\n\
                      1 _ZN1a1c17h0E/1 0 1 _ZN6subtle9black_box17h0E/1 2a 0 5000\n\
                      1 aws_lc_0_47_0_x25519/1 2 1 aws_lc_0_47_0_x25519/1 0 0 5000\n\
                      1 a\\ name/1 2 1 _ZN1a1c17h0E/1 0 0 5000\n";
        let stays = |symbol: &str| symbol.contains("6subtle");
        assert_eq!(choose(&format!("{others}{often}{others}"), stays).unwrap(), often);
        assert!(choose(others, stays).is_err());
    }

    #[test]
    fn a_version_is_known_or_it_is_not_taken() {
        assert_eq!(
            llvm_version("LLVM (http://llvm.org/):\n  LLVM version 19.1.7\n  Optimized build.\n"),
            Some(19)
        );
        assert_eq!(llvm_version("Debian LLVM version 9.0"), Some(9));
        assert_eq!(llvm_version("BOLT"), None);
        assert!(None < Some(*LLVM_VERSIONS.start()));
    }

    #[test]
    fn counts_name_no_place() {
        let counts = "---\nheader:\n  binary-name:     '/somewhere/claviger'\n  binary-build-id: 12\n";
        let without = "---\nheader:\n  binary-name:     claviger\n  binary-build-id: 12\n";
        assert_eq!(without_path(counts), without);
    }
}
