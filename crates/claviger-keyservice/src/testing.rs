//! What this crate's unit tests share.

use std::sync::Arc;

use claviger_env::{OsRandom, SystemClock};
use claviger_format::Random;

pub(crate) fn random() -> Arc<dyn Random> {
    Arc::new(OsRandom::new(Arc::new(SystemClock)).unwrap())
}
