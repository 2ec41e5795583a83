//! What threads of this process used, by the beginning of their names (Linux: `/proc/self/task`).

use std::fs;

/// Clock ticks a second in `/proc`: 100 on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time that the threads used whose names begin so, as far as they still live.
pub(crate) fn cpu_s(names: &[&str]) -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let ticks: u64 = tasks
        .filter_map(|task| {
            // A thread may end while one looks.
            let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            let (head, fields) = stat.split_once(") ")?;
            let (_, name) = head.split_once('(')?;
            if !names.iter().any(|wanted| name.starts_with(wanted)) {
                return Some(0);
            }
            // Fields 14 and 15 of proc_pid_stat(5); the split took the first two.
            let mut fields = fields.split(' ').skip(11);
            let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(user + system)
        })
        .sum();
    u32::try_from(ticks).map_or(f64::INFINITY, f64::from) / TICKS_PER_SECOND
}
