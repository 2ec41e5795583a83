//! The embedded S3 provider of the demo and the tests: an S3 store that keeps plain files.
//!
//! It is the adversary's half of a demonstration: a real S3 endpoint on a socket that knows nothing of encryption, and a
//! folder in which everybody can look at what it got. Requests are parsed and signatures verified by the `s3s` framework,
//! on purpose an implementation independent of `claviger-s3`; storage is this crate's own (`docs/decisions/002`).
//!
//! What lies where: one folder per bucket; under `objects` every object is one plain file with exactly its bytes, and a
//! small JSON file with its ETag, headers and metadata beside it. Replacing an object, a part, or a crash of the process
//! between any two steps leaves the old object or the new one, never a mixture. Nothing is fsynced.
//!
//! Not here: versions, tags, ACLs, policies, lifecycle, object lock (`NotImplemented`), virtual-host addressing, and any
//! protection against being put on the open internet.

mod api;
mod error;
mod server;
mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger_env::Clock;
use s3s::auth::SecretKey;
use s3s::service::{S3Service, S3ServiceBuilder};

pub use error::{Error, Reply};

/// The key pair that clients of the provider sign with.
pub struct Credentials {
    access_key_id: String,
    secret_key: SecretKey,
}

/// An S3 store over one folder.
pub struct Provider {
    store: Arc<store::Store>,
    service: S3Service,
}

/// Where the files of one object lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFiles {
    /// The file with exactly the object's bytes.
    pub data: PathBuf,
    /// The JSON file with its ETag, headers and metadata.
    pub sidecar: PathBuf,
}

/// What the provider knows of one object besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The ETag without quotes.
    pub etag: String,
    /// Bytes when it was stored.
    pub size: u64,
    /// Content headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// User metadata by name, without `x-amz-meta-`.
    pub user_metadata: BTreeMap<String, String>,
}

impl Credentials {
    /// Takes an access key id and its secret.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self { access_key_id: access_key_id.into(), secret_key: SecretKey::from(secret_access_key.into()) }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

impl Provider {
    /// Opens the store in `folder`, which is made if it is not there; what an earlier process stored is there again.
    ///
    /// Requests have to be signed with `credentials` for `region`. Reads every sidecar, so it takes time in proportion to
    /// the number of objects.
    ///
    /// # Errors
    /// The folder can't be read or written, or a sidecar in it is not one.
    pub fn open(
        folder: &Path,
        credentials: Credentials,
        region: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let store = Arc::new(store::Store::open(folder, clock)?);
        let api = api::Api { store: Arc::clone(&store), region: region.to_owned() };
        let mut builder = S3ServiceBuilder::new(api);
        builder.set_auth(api::KeyRing {
            access_key_id: credentials.access_key_id,
            secret_key: credentials.secret_key,
        });
        builder.set_access(api::Gate { region: region.to_owned() });
        Ok(Self { store, service: builder.build() })
    }

    /// Where the bytes and the sidecar of an object lie now. A later write moves the bytes to another file.
    ///
    /// # Errors
    /// There is no such bucket or object, or its sidecar can't be read.
    pub fn object_files(&self, bucket: &str, key: &str) -> Result<ObjectFiles, Error> {
        let bucket = self.store.bucket(bucket)?;
        let opened = bucket.read(key)?;
        let sidecar = bucket.sidecar_path(key);
        Ok(ObjectFiles { data: sidecar.with_file_name(&opened.sidecar.data), sidecar })
    }

    /// The keys in a bucket, in byte order.
    ///
    /// # Errors
    /// There is no such bucket.
    pub fn keys(&self, bucket: &str) -> Result<Vec<String>, Error> {
        self.store.bucket(bucket)?.listed(|index| index.keys().cloned().collect())
    }

    /// What the provider knows of an object, as its JSON file has it.
    ///
    /// # Errors
    /// There is no such bucket or object, or its sidecar can't be read.
    pub fn description(&self, bucket: &str, key: &str) -> Result<Description, Error> {
        let sidecar = self.store.bucket(bucket)?.read(key)?.sidecar;
        let store::Attributes { headers, user_metadata, .. } = sidecar.attributes;
        Ok(Description { etag: sidecar.etag, size: sidecar.size, headers, user_metadata })
    }

    /// Answers S3 over HTTP/1.1 on `listener` until `shutdown` is ready, then lets running requests finish for a while.
    ///
    /// # Errors
    /// The listener failed for good.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        server::serve(self.service.clone(), listener, shutdown).await
    }
}
