//! The frozen vectors, with the backend inside this crate.
#![cfg(feature = "conformance")]

#[test]
fn the_rustcrypto_backend_reproduces_every_known_answer() {
    claviger_format::conformance::run::<claviger_format::RustCryptoAes256Gcm>();
}
