//! Keys in the gateway: the epoch that it writes with (`write`), what it may read with (`read`), and the uploads
//! that it began (`uploads`). All come from the key service; none is ever written down here. What the service takes back, of
//! which it tells on a stream (`watch`), is dropped at once (`holdings`, `era`).

pub(crate) mod era;
pub(crate) mod holdings;
pub(crate) mod metered;
mod opened;
pub(crate) mod read;
pub(crate) mod seen;
pub(crate) mod session;
pub(crate) mod uploads;
pub(crate) mod watch;
pub(crate) mod write;
