//! Futures in boxes.

use std::pin::Pin;

/// The future that `make` makes, made where it stays.
///
/// `Box::pin` makes it on the stack and copies all of it, of which hardly anything is set at that moment: a request's state is 2 to
/// 14 KiB. A handler or a step that is rare and large is boxed either way, since what holds it would carry the room for it.
pub(crate) fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}
