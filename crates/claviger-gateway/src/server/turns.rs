//! What a connection does itself does not wake it, and wakes no handler.
//!
//! One task polls a connection, the handler of its request and the body of the answer. hyper hands bodies from the one to the other
//! by channels, which wake who waits at the other end: the task that is just being polled, and that comes to that end in the same
//! turn. It would be polled once more for nothing. So handler and body are given a waker of their own. It tells the task only if
//! nobody has looked since, once the turn is over; and as long as nobody has called it, a turn leaves out who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// The connection is being polled.
const IN_TURN: u8 = 1;
/// The handler or the body was woken, and has been polled neither since nor in a turn that has begun since.
const AGAIN: u8 = 2;
/// The handler or the body was woken, and has not been polled since.
const WOKEN: u8 = 4;
/// The handler or the body waits to be woken.
const WAITING: u8 = 8;

/// The turns of one connection on its runtime.
pub(super) struct Turns {
    state: Arc<State>,
    /// What the handler and the body are woken by.
    waker: Waker,
}

#[derive(Default)]
struct State {
    /// Who polls the connection.
    task: AtomicWaker,
    flags: AtomicU8,
}

impl State {
    /// The flags as they were.
    fn clear(&self, flags: u8) -> u8 {
        self.flags.fetch_and(!flags, AcqRel)
    }

    fn set(&self, flags: u8) -> u8 {
        self.flags.fetch_or(flags, AcqRel)
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.set(AGAIN | WOKEN) & IN_TURN == 0 {
            self.task.wake();
        }
    }
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        let state = Arc::<State>::default();
        Arc::new(Self { waker: state.clone().into(), state })
    }

    /// Polls the connection, and within it what [`Self::poll_within`] polls.
    pub(super) fn turn<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.state.task.register(cx.waker());
        // What came before is why it is polled now; hyper polls no body while the client takes nothing.
        self.state.clear(AGAIN);
        self.state.set(IN_TURN);
        let polled = poll(cx);
        if self.state.clear(IN_TURN | AGAIN) & AGAIN != 0 {
            cx.waker().wake_by_ref();
        }
        polled
    }

    /// A handler begins: whoever waited before is gone.
    pub(super) fn begin(&self) {
        self.state.clear(WAITING);
    }

    /// Polls the handler or the body, of which a connection has one at a time.
    pub(super) fn poll_within<T>(&self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let before = self.state.clear(AGAIN | WOKEN);
        debug_assert!(before & IN_TURN != 0, "outside of a turn nobody would be woken");
        if before & (WAITING | WOKEN) == WAITING {
            return Poll::Pending;
        }
        let polled = poll(&mut Context::from_waker(&self.waker));
        if polled.is_pending() {
            self.state.set(WAITING);
        } else {
            // Whoever has got something asks for the next without being woken.
            self.state.clear(AGAIN | WAITING);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// Polls a connection whose handler does `within`; says how often the task has been woken by then.
    fn turn(turns: &Turns, count: &Arc<Count>, within: impl FnOnce(&mut Context<'_>) -> Poll<()>) -> usize {
        let waker = Waker::from(count.clone());
        let _ = turns.turn(&mut Context::from_waker(&waker), |_| turns.poll_within(within));
        count.0.load(SeqCst)
    }

    #[test]
    fn a_wake_that_is_seen_to_in_the_same_turn_wakes_nobody() {
        let (turns, count) = (Turns::new(), Arc::<Count>::default());
        let waker = Waker::from(count.clone());
        let mut handlers = turns.waker.clone();
        let _ = turns.turn(&mut Context::from_waker(&waker), |_| {
            handlers.wake_by_ref();
            turns.poll_within(|cx| {
                handlers = cx.waker().clone();
                Poll::<()>::Pending
            })
        });
        assert_eq!(count.0.load(SeqCst), 0);
        assert_eq!(
            turn(&turns, &count, |cx| {
                cx.waker().wake_by_ref();
                Poll::Ready(())
            }),
            0
        );
    }

    #[test]
    fn a_wake_that_nobody_has_seen_to_wakes_the_task_after_the_turn() {
        let (turns, count) = (Turns::new(), Arc::<Count>::default());
        // By what is polled, while it is polled.
        assert_eq!(
            turn(&turns, &count, |cx| {
                cx.waker().wake_by_ref();
                Poll::Pending
            }),
            1
        );
        // After it was polled, in the same turn.
        let waker = Waker::from(count.clone());
        let _ = turns.turn(&mut Context::from_waker(&waker), |_| {
            let polled = turns.poll_within(|_| Poll::<()>::Pending);
            turns.waker.wake_by_ref();
            polled
        });
        assert_eq!(count.0.load(SeqCst), 2);
        // Between turns.
        assert_eq!(turn(&turns, &count, |_| Poll::Pending), 2);
        turns.waker.wake_by_ref();
        assert_eq!(count.0.load(SeqCst), 3);
        // Who was woken may be left waiting, by a connection that waits for its peer: that is no reason for further turns.
        let _ = turns.turn(&mut Context::from_waker(&waker), |_| Poll::<()>::Pending);
        assert_eq!(count.0.load(SeqCst), 3);
    }

    #[test]
    fn who_waits_is_polled_when_he_was_woken_and_not_before() {
        let turns = Turns::new();
        let mut times = 0;
        let mut poll = |answer: Poll<()>| {
            let _ = turns.turn(&mut Context::from_waker(Waker::noop()), |_| {
                turns.poll_within(|_| {
                    times += 1;
                    answer
                })
            });
            times
        };
        assert_eq!(poll(Poll::Ready(())), 1);
        assert_eq!(poll(Poll::Pending), 2);
        assert_eq!(poll(Poll::Pending), 2);
        turns.waker.wake_by_ref();
        assert_eq!(poll(Poll::Pending), 3);
        assert_eq!(poll(Poll::Pending), 3);
        // Of the next request, while the last one's answer was left waiting.
        turns.begin();
        assert_eq!(poll(Poll::Ready(())), 4);
        assert_eq!(poll(Poll::Ready(())), 5);
    }

    /// Threads hand numbers to a handler and wake it whenever they like; a wake that got lost would leave it waiting.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_lost() {
        const COUNT: usize = 100_000;
        let turns = Turns::new();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let sending = tokio::spawn(async move {
            for number in 0..COUNT {
                sender.send(number).await.unwrap();
            }
        });
        let mut expected = 0;
        let connection = std::future::poll_fn(|cx| {
            turns.turn(cx, |_| {
                turns.poll_within(|cx| {
                    while let Some(number) = std::task::ready!(receiver.poll_recv(cx)) {
                        assert_eq!(number, expected);
                        expected += 1;
                    }
                    Poll::Ready(())
                })
            })
        });
        tokio::time::timeout(std::time::Duration::from_secs(60), connection).await.unwrap();
        sending.await.unwrap();
        assert_eq!(expected, COUNT);
    }
}
