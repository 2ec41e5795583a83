//! What follows from looks at the key service's audit log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::holdings::Holdings;
use crate::admin::Readiness;
use crate::key_client::Sight;

/// What each look at the key service's audit log does: health says how it ended, and what a service gave that has not shown its
/// log for too long is dropped. A service that can't be asked is a warning: whether that matters, the session says.
pub(crate) fn seen(
    readiness: &Readiness,
    holdings: &Arc<Holdings>,
) -> impl Fn(&Sight) + Send + Sync + 'static {
    let (component, warning) = (readiness.register("key_service_log"), readiness.warning("key_service_log"));
    // The witness is part of what it would hold otherwise.
    let (holdings, is_over) = (Arc::downgrade(holdings), AtomicBool::new(false));
    move |sight| {
        match sight {
            Sight::Clear => {
                component.ready();
                warning.clear();
            }
            Sight::Away(why) => warning.raise(format!("it could not be looked at: {why}")),
            Sight::Hidden(why) | Sight::Over(why) => {
                component.not_ready(why.as_str());
                warning.clear();
            }
        }
        let is_now = matches!(sight, Sight::Over(_));
        let was = is_over.swap(is_now, Ordering::AcqRel);
        if let Some(holdings) = holdings.upgrade().filter(|_| is_now && !was) {
            holdings.drop_all("unseen");
        }
    }
}
