//! One stream: the task that looks, and the body that carries what it tells.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use claviger_keyapi::WatchEvent;
use claviger_keyapi::watch::WATCH_BEAT_S;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::look::{End, Eyes};
use crate::identity::Peer;
use crate::metrics::{WATCH_CUT_OFF, WATCH_EVENTS, WATCH_STREAMS};
use crate::service::{Caller, Core};

/// Lines that wait for a slow reader …
const LINES_MAX: usize = 4;
/// … and how long it may leave them waiting.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a look, none for so long: however often the bell rings, a stream costs this much and no more.
const REST: Duration = Duration::from_millis(50);

/// Lines as an answer's body. Whoever reads it or drops it decides how long the stream lives.
pub(crate) struct WatchBody(mpsc::Receiver<Bytes>);

impl Body for WatchBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

/// Begins a stream for a caller; `peer` is what its connection showed.
pub(crate) fn begin(core: Arc<Core>, peer: Peer, caller: &Caller) -> WatchBody {
    let (lines, body) = mpsc::channel(LINES_MAX);
    // Before the first look: a change in between rings.
    let bell = core.watchers.bell.subscribe();
    let (eyes, hello) = Eyes::open(&core, peer, caller);
    tokio::spawn(async move {
        let _counted = Counted::new();
        let stream = Stream { core: &core, lines: Lines(lines), bell };
        stream.run(eyes, hello).await;
    });
    WatchBody(body)
}

struct Stream<'a> {
    core: &'a Core,
    lines: Lines,
    bell: tokio::sync::watch::Receiver<()>,
}

/// The way to the reader.
struct Lines(mpsc::Sender<Bytes>);

/// The reader is gone, or too slow.
#[derive(Debug)]
struct Gone;

impl Stream<'_> {
    async fn run(mut self, mut eyes: Eyes, hello: WatchEvent) {
        let place = self.core.watchers.enter(eyes.uid());
        if self.lines.tell(&hello).await.is_err() {
            return;
        }
        let mut beat = interval(Duration::from_secs(WATCH_BEAT_S));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        loop {
            let beat_is_due = tokio::select! {
                () = self.lines.0.closed() => return,
                Ok(()) = self.bell.changed() => false,
                _ = beat.tick() => true,
            };
            if !place.is_held() {
                return;
            }
            // Also when nothing rang: a certificate may have run out.
            let events = match eyes.look(self.core) {
                Ok(events) if events.is_empty() && beat_is_due => vec![WatchEvent::Beat],
                Ok(events) => events,
                Err(end) => return self.end(&end).await,
            };
            for event in &events {
                if self.lines.tell(event).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(REST).await;
        }
    }

    async fn end(&self, end: &End) {
        if let Some(event) = end.event() {
            // Whoever can't be told is not told: the stream ends either way.
            let _ = self.lines.tell(&event).await;
        }
    }
}

impl Lines {
    async fn tell(&self, event: &WatchEvent) -> Result<(), Gone> {
        let Ok(mut line) = serde_json::to_vec(event) else { return Err(Gone) };
        line.push(b'\n');
        match timeout(PATIENCE, self.0.send(Bytes::from(line))).await {
            Ok(sent) => sent.map_err(|_| Gone)?,
            Err(_) => {
                metrics::counter!(WATCH_CUT_OFF).increment(1);
                return Err(Gone);
            }
        }
        metrics::counter!(WATCH_EVENTS, "event" => event.name()).increment(1);
        Ok(())
    }
}

/// An open stream in the gauge.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!(WATCH_STREAMS).increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(WATCH_STREAMS).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_cut_off_and_takes_no_more_than_a_few_lines() {
        let (lines, mut body) = mpsc::channel(LINES_MAX);
        let lines = Lines(lines);
        for _ in 0..LINES_MAX {
            lines.tell(&WatchEvent::Beat).await.unwrap();
        }
        let begun = tokio::time::Instant::now();
        lines.tell(&WatchEvent::Beat).await.unwrap_err();
        assert_eq!(begun.elapsed(), PATIENCE);
        drop(lines);
        let mut read = 0;
        while body.recv().await.is_some() {
            read += 1;
        }
        assert_eq!(read, LINES_MAX);
    }
}
