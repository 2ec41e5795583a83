//! Programs that are measured: started, looked at while they run, ended.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long anything may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program, its children included; ended when it is dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts it; its output goes to `dir`/`name`.log.
    pub(crate) fn start(name: &str, dir: &Path, command: &mut Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} can't be started"))?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    /// Waits until `is_ready` says so; gives how long that took.
    pub(crate) fn wait_until(&mut self, mut is_ready: impl FnMut() -> bool) -> Result<Duration> {
        let begun = Instant::now();
        while !is_ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.end_of_log());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{} does not come up: {}", self.name, self.end_of_log());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(begun.elapsed())
    }

    fn end_of_log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// What it and its children have used so far.
    pub(crate) fn used(&self) -> Result<Used> {
        let mut used = Used::default();
        for pid in self.family()? {
            used.cpu_s += cpu_s(pid)?;
            used.peak_rss_mib += peak_rss_mib(pid)?;
        }
        Ok(used)
    }

    /// The peak counts from here on.
    pub(crate) fn reset_peak(&self) -> Result<()> {
        for pid in self.family()? {
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak can't be reset")?;
        }
        Ok(())
    }

    fn family(&self) -> Result<Vec<u32>> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"))
            .with_context(|| format!("{} is gone: {}", self.name, self.end_of_log()))?;
        let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
        Ok(std::iter::once(own).chain(children).collect())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // Gone already is as good.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program has used.
#[derive(Clone, Copy, Default)]
pub(crate) struct Used {
    /// Seconds of processor time, user and system.
    pub(crate) cpu_s: f64,
    /// The most memory that was resident since [`Process::reset_peak`], in MiB. Pages that processes share count for each.
    pub(crate) peak_rss_mib: f64,
}

/// User and system time of all threads, those that ended included (proc(5): fields 14 and 15, in ticks).
fn cpu_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything; what follows its last parenthesis does not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let ticks =
        |at: usize| -> Result<u64> { Ok(fields.get(at).context("/proc/PID/stat is short")?.parse()?) };
    Ok(seconds(ticks(11)? + ticks(12)?))
}

#[allow(clippy::cast_precision_loss, reason = "ticks since a start")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Milliseconds of processor time that the host gave to others while this machine wanted it, since it was started (proc(5), `steal`);
/// 0 where nobody counts it.
pub(crate) fn stolen_ms() -> Result<f64> {
    Ok(1e3 * seconds(stolen_ticks(&std::fs::read_to_string("/proc/stat")?)?))
}

/// Of all processors: the eighth number of the first line.
fn stolen_ticks(stat: &str) -> Result<u64> {
    let all = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .context("no line of all processors")?;
    all.split_ascii_whitespace().nth(7).map_or(Ok(0), |ticks| ticks.parse().context("stolen time"))
}

fn peak_rss_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// Runs something to its end; its output on an error only.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| shown.clone())?;
    if !output.status.success() {
        bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A file that only its owner reads, as Claviger wants of secrets.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_the_eighth_number_of_all_processors() {
        let stat =
            "cpu  5918294 164365 1040873 5616551 35462 0 282299 23827 1 2\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(stolen_ticks(stat).unwrap(), 23_827);
        assert_eq!(stolen_ticks("cpu  1 2 3 4\n").unwrap(), 0, "a system that does not count it");
        assert!(stolen_ticks("cpu  1 2 3 4 5 6 7 many\n").is_err());
        assert!(stolen_ticks("intr 1\n").is_err());
        assert!(stolen_ms().unwrap() >= 0.0);
    }
}
