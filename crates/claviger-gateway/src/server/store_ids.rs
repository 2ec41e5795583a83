//! The store's own ids of the requests that one client's request led to: with them its operator finds them in its log.

use std::sync::{Arc, Mutex, PoisonError};

/// So many of the latest are kept: a listing may ask the store a thousand times.
const KEPT_MAX: usize = 4;
/// Characters of an id at most.
const ID_LEN_MAX: usize = 128;

/// The latest ids, shared between the request and its line in the log. What a store sends is its own choice: only
/// visible ASCII of bounded length gets in.
#[derive(Debug, Clone, Default)]
pub struct StoreRequestIds(Arc<Mutex<Vec<String>>>);

impl StoreRequestIds {
    /// Adds the ids of one request, `x-amz-request-id` and `x-amz-id-2`; an empty one was not sent.
    pub fn add(&self, request_id: &str, id_2: &str) {
        let (request_id, id_2) = (clean(request_id), clean(id_2));
        let both = match (request_id.is_empty(), id_2.is_empty()) {
            (true, true) => return,
            (_, true) => request_id,
            _ => format!("{request_id}/{id_2}"),
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        kept.push(both);
    }

    /// As it stands in the log: `request-id[/id-2]`, the latest last; `None` if there is none.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!kept.is_empty()).then(|| kept.join(" "))
    }
}

fn clean(id: &str) -> String {
    id.chars().filter(char::is_ascii_graphic).take(ID_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_ids_are_kept_and_nothing_but_visible_ascii() {
        let ids = StoreRequestIds::default();
        assert_eq!(ids.text(), None);
        ids.add("", "");
        assert_eq!(ids.text(), None);
        ids.add("tx1\n forged=\u{1b}[2J", "");
        ids.add("tx2", "host");
        assert_eq!(ids.text().unwrap(), "tx1forged=[2J tx2/host");
        for number in 3..=9 {
            ids.add(&format!("tx{number}"), "");
        }
        assert_eq!(ids.text().unwrap(), "tx6 tx7 tx8 tx9");
        ids.add(&"x".repeat(1000), "");
        assert_eq!(ids.text().unwrap().rsplit(' ').next().unwrap().len(), ID_LEN_MAX);
    }
}
