//! The Rust clients of the end-to-end tests: `aws-sdk-s3` over plain http (whose file bodies travel with signed trailers)
//! and `object_store`. Prints one line for each step: `PASS<TAB>step` or `FAIL<TAB>step<TAB>reason`.
//!
//! Settings come from the usual AWS_* variables; CLAVIGER_E2E_DATA is the folder with the data files that the suite made,
//! CLAVIGER_E2E_META and CLAVIGER_E2E_TYPE are a metadata value and a content type, CLAVIGER_E2E_BUCKET an existing bucket.

mod sdk;
mod store;

use std::env;
use std::fmt::Display;
use std::path::PathBuf;

/// What the suite hands over.
pub struct Settings {
    pub endpoint: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    pub bucket: String,
    pub meta: String,
    pub content_type: String,
    pub data: PathBuf,
}

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

impl Settings {
    fn from_env() -> Self {
        let var = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        Self {
            endpoint: var("AWS_ENDPOINT_URL"),
            region: var("AWS_REGION"),
            access_key: var("AWS_ACCESS_KEY_ID"),
            secret_key: var("AWS_SECRET_ACCESS_KEY"),
            bucket: var("CLAVIGER_E2E_BUCKET"),
            meta: var("CLAVIGER_E2E_META"),
            content_type: var("CLAVIGER_E2E_TYPE"),
            data: PathBuf::from(var("CLAVIGER_E2E_DATA")),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(name)).expect("the suite made this file")
    }
}

pub fn report(step: &str, outcome: Outcome) {
    match outcome {
        Ok(()) => println!("PASS\t{step}"),
        Err(error) => println!("FAIL\t{step}\t{}", chain(error.as_ref()).replace(['\n', '\t'], " ")),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {error:?}");
    text.truncate(600);
    text
}

/// Equal, or an error that says what was compared.
pub fn same<T: PartialEq>(what: impl Display, got: T, want: T) -> Outcome {
    if got == want { Ok(()) } else { Err(format!("{what} differs").into()) }
}

#[tokio::main]
async fn main() {
    let settings = Settings::from_env();
    // reqwest, beneath object_store, wants one even where nothing is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match env::args().nth(1).as_deref() {
        Some("sdk") => sdk::run(&settings).await,
        Some("object_store") => store::run(&settings).await,
        _ => panic!("say sdk or object_store"),
    }
}
