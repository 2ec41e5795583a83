//! In which state the service is, whichever of its replicas shows it.
//!
//! A replica is honest and wrong if its database shows it an earlier day: its log goes on as it should, and what it decides by is out of
//! date. All replicas count their changes in one sequence, so one that shows a smaller number than another one did, or another digest for the
//! same number, was shown another past. Nobody signs that: it comes over the connection, from the service itself.

use claviger_keyapi::KeyServiceError;
use claviger_keyapi::routes::{LedgerState, LogHead};

use super::Witness;

impl Witness {
    /// Remembers the state that is shown, if it can follow on the one that is remembered. Where nothing of the service is remembered
    /// any more, an operator has settled what was.
    pub(super) async fn believe_state(&self, is_first: bool, shown: &LogHead) -> Result<(), KeyServiceError> {
        let Some(state) = shown.state.clone() else { return Ok(()) };
        let known = if is_first { None } else { self.on_disk(|shelf| shelf.state()).await? };
        if known.as_ref() == Some(&state) {
            return Ok(());
        }
        if let Some(why) = known.and_then(|known| contradiction(&known, &state)) {
            let stopped = self.stop(self.shelf.with_remedy_for_state(&why));
            // If it can't be written down it holds for as long as that is what is shown; why is in the log.
            let _ = self.on_disk(move |shelf| shelf.keep_contradicted_state(&why)).await;
            return Err(stopped);
        }
        self.on_disk(move |shelf| shelf.keep_state(&state)).await
    }
}

fn contradiction(known: &LedgerState, shown: &LedgerState) -> Option<String> {
    let (before, now) = (known.number, shown.number);
    if now < before {
        return Some(format!(
            "it is in state {now} of what it decides by, and was in state {before}: its database was put back, or shows its replicas \
             different pasts, and what was revoked or frozen since may be forgotten"
        ));
    }
    (now == before && known.digest != shown.digest).then(|| {
        format!(
            "its replicas are in two different states of the number {now}: their database shows them different pasts, and what was revoked \
             or frozen at one of them may not be so at the other"
        )
    })
}
