//! Turns that begin at given moments.
//!
//! The runtime's timers go by milliseconds: with them, what many independent clients ask one after the other would come in
//! volleys, and a load of a half would be a row of full ones. So the moments come from a timer of the kernel's.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// When one worker's next turns are due.
pub(super) type Beats = UnboundedReceiver<Instant>;

/// Starts a turn `every` so often until `end`, by the workers in rotation, and gives what each of them waits for. A turn
/// whose worker is still busy is told to it all the same.
///
/// # Errors
/// When the system gives no timer.
pub(super) fn start(workers: usize, every: Duration, end: Instant) -> io::Result<Vec<Beats>> {
    let (told, beats): (Vec<UnboundedSender<Instant>>, Vec<Beats>) =
        (0..workers).map(|_| unbounded_channel()).unzip();
    let begun = Instant::now();
    let timer = timer(every)?;
    tokio::spawn(async move {
        if let Err(error) = beat(&timer, &told, (begun, every, end)).await {
            println!("the timer broke, and the load ends early: {error}");
        }
    });
    Ok(beats)
}

#[allow(
    deprecated,
    reason = "an OwnedFd's descriptor is its own and stays the same; what replaces this is unsafe code"
)]
fn timer(every: Duration) -> io::Result<AsyncFd<OwnedFd>> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let every = Timespec::try_from(every).map_err(io::Error::other)?;
    let spec = Itimerspec { it_interval: every, it_value: every };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec)?;
    AsyncFd::with_interest(timer, Interest::READABLE)
}

async fn beat(
    timer: &AsyncFd<OwnedFd>,
    told: &[UnboundedSender<Instant>],
    (begun, every, end): (Instant, Duration, Instant),
) -> io::Result<()> {
    let (mut due, mut workers) = (begun, told.iter().cycle());
    loop {
        let mut count = [0; 8];
        let read = timer.readable().await?.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?));
        match read {
            Ok(read) => read.map(drop)?,
            // It had been read already.
            Err(_) => continue,
        }
        for worker in workers.by_ref().take(usize::try_from(u64::from_ne_bytes(count)).unwrap_or(0)) {
            due += every;
            if due >= end {
                return Ok(());
            }
            // A worker that failed hears nothing more; the run ends with its error.
            let _ = worker.send(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_turn_is_told_once_in_rotation_and_none_before_it_is_due() {
        let begun = Instant::now();
        let beats = start(3, Duration::from_millis(2), begun + Duration::from_millis(61)).unwrap();
        let mut all = Vec::new();
        let (told, mut heard) = unbounded_channel();
        for (worker, mut beats) in beats.into_iter().enumerate() {
            let told = told.clone();
            tokio::spawn(async move {
                while let Some(due) = beats.recv().await {
                    assert!(Instant::now() >= due);
                    told.send((due, worker)).unwrap();
                }
            });
        }
        drop(told);
        while let Some(turn) = heard.recv().await {
            all.push(turn);
        }
        all.sort_unstable();
        assert!((29..=30).contains(&all.len()), "{}", all.len());
        assert!(all.iter().enumerate().all(|(turn, (_, worker))| *worker == turn % 3), "{all:?}");
    }
}
