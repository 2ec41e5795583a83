//! Work that goes on without the request that began it, and that a stop waits for.

use std::future::Future;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is running. A clone is another handle on the same.
#[derive(Debug, Clone)]
pub(crate) struct Errands {
    running: watch::Sender<usize>,
}

/// One errand; counted as long as it is there, also when it panics.
struct Running(watch::Sender<usize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Errands {
    pub(crate) fn new() -> Self {
        Self { running: watch::Sender::new(0) }
    }

    /// Begins `work`, which goes on when the handle is dropped. Must be called inside a tokio runtime.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.running.send_modify(|count| *count += 1);
        let running = Running(self.running.clone());
        tokio::spawn(async move {
            let _running = running;
            work.await
        })
    }

    /// Resolves as soon as nothing runs. What begins while it waits is waited for too.
    pub(crate) async fn settled(&self) {
        // The sender is `self`'s: it can't be gone.
        drop(self.running.subscribe().wait_for(|&count| count == 0).await);
    }

    /// How many are running.
    pub(crate) fn count(&self) -> usize {
        *self.running.borrow()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_errand_goes_on_without_its_handle_and_is_waited_for() {
        let errands = Errands::new();
        let (done, mut hears) = tokio::sync::oneshot::channel();
        drop(errands.spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            done.send(()).unwrap();
        }));
        assert_eq!(errands.count(), 1);
        errands.settled().await;
        assert!(hears.try_recv().is_ok());
        assert_eq!(errands.count(), 0);
    }

    #[tokio::test]
    async fn an_errand_that_panics_is_over() {
        let errands = Errands::new();
        assert!(errands.spawn(async { panic!("a bug") }).await.is_err());
        errands.settled().await;
    }
}
