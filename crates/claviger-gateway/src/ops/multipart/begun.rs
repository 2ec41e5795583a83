//! An upload at the provider between its beginning and the moment from which somebody else knows of it.

use tokio::runtime::Handle;

use crate::errands::Errands;
use crate::error::GatewayError;
use crate::upstream::Upstream;
use crate::upstream::multipart::StoreUpload;
use crate::upstream::object::StoreAs;

/// An upload that only its owner knows of. Dropped, it is aborted: no request that breaks off, and no stop of the gateway,
/// leaves one behind.
pub(crate) struct BegunUpload {
    errands: Errands,
    upstream: Upstream,
    bucket: String,
    key: String,
    upload_id: String,
    kept: bool,
}

impl BegunUpload {
    /// Begins an upload. If the caller goes away while the provider takes its time, the upload is aborted when its id is
    /// known.
    ///
    /// # Errors
    /// The provider's.
    pub(crate) async fn begin(
        errands: &Errands,
        upstream: &Upstream,
        (bucket, key): (&str, &str),
        store_as: StoreAs<'_>,
    ) -> Result<Self, GatewayError> {
        let headers = store_as.headers()?;
        let (waiting, upstream) = (errands.clone(), upstream.clone());
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let begun = errands.spawn(async move {
            let upload_id = upstream.create_upload(&bucket, &key, headers).await?;
            Ok(Self { errands: waiting, upstream, bucket, key, upload_id, kept: false })
        });
        begun.await.map_err(|_| GatewayError::Internal("the beginning of an upload panicked"))?
    }

    /// The upload as requests name it.
    pub(crate) fn at_store(&self) -> StoreUpload<'_> {
        StoreUpload { bucket: &self.bucket, key: &self.key, upload_id: &self.upload_id }
    }

    /// From now on somebody else knows of it, or it is over.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Aborts the upload and waits for it. A failure is logged.
    pub(crate) async fn abandon(mut self) {
        self.kept = true;
        let upstream = self.upstream.clone();
        abort(&upstream, self.at_store()).await;
    }
}

impl Drop for BegunUpload {
    fn drop(&mut self) {
        // Outside of a runtime the process is at its end.
        if std::mem::replace(&mut self.kept, true) || Handle::try_current().is_err() {
            return;
        }
        let upstream = self.upstream.clone();
        let (bucket, key) = (std::mem::take(&mut self.bucket), std::mem::take(&mut self.key));
        let upload_id = std::mem::take(&mut self.upload_id);
        drop(self.errands.spawn(async move {
            let upload = StoreUpload { bucket: &bucket, key: &key, upload_id: &upload_id };
            abort(&upstream, upload).await;
        }));
    }
}

async fn abort(upstream: &Upstream, upload: StoreUpload<'_>) {
    if let Err(error) = upstream.abort_upload(upload).await {
        tracing::warn!(%error, "an upload that nobody knows of could not be aborted");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use claviger_env::SystemClock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::UpstreamConfig;
    use crate::credentials::UpstreamAccounts;
    use crate::upstream::account::Account;
    use crate::upstream::tls::client_config;

    const BEGUN: &str = "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u1</UploadId>\
                         </InitiateMultipartUploadResult>";

    /// A store that begins uploads after `answer_after`, drops them, and answers nothing else. Gives the request lines.
    pub(in crate::ops::multipart) async fn store(
        answer_after: Duration,
    ) -> (Upstream, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (heard, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, heard.clone(), answer_after));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let account = folder.path().join("account.toml");
        std::fs::write(&account, "access_key_id = \"A\"\nsecret_access_key = \"0123456789012345\"\n")
            .unwrap();
        std::fs::set_permissions(&account, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let credentials = UpstreamAccounts::load(&account).unwrap().own;
        let config = UpstreamConfig::new(endpoint, account);
        let account = Arc::new(Account::keyed(credentials));
        let tls = client_config(None).unwrap();
        (Upstream::new(&config, account, tls, Arc::new(SystemClock)).unwrap(), requests)
    }

    async fn answer(mut stream: TcpStream, heard: mpsc::UnboundedSender<String>, answer_after: Duration) {
        let mut head = Vec::new();
        loop {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
            heard.send(line.clone()).ok();
            head.clear();
            let answer = match line.split(' ').next() {
                Some("POST") => {
                    tokio::time::sleep(answer_after).await;
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{BEGUN}", BEGUN.len())
                }
                Some("DELETE") => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                _ => std::future::pending().await,
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// The next request line within some seconds.
    pub(in crate::ops::multipart) async fn next(requests: &mut mpsc::UnboundedReceiver<String>) -> String {
        let waited = tokio::time::timeout(Duration::from_secs(10), requests.recv()).await;
        waited.expect("a request comes").unwrap()
    }

    #[tokio::test]
    async fn an_upload_whose_owner_is_dropped_is_aborted_and_a_kept_one_is_not() {
        let (upstream, mut requests) = store(Duration::ZERO).await;
        let errands = Errands::new();
        for keep in [true, false] {
            let upload =
                BegunUpload::begin(&errands, &upstream, ("b", "k"), StoreAs::default()).await.unwrap();
            assert!(next(&mut requests).await.starts_with("POST /b/k?uploads"));
            if keep {
                upload.keep();
            } else {
                drop(upload);
            }
            errands.settled().await;
        }
        assert!(next(&mut requests).await.starts_with("DELETE /b/k?uploadId=u1"));
        assert!(requests.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_upload_that_begins_when_nobody_waits_any_more_is_aborted() {
        let (upstream, mut requests) = store(Duration::from_millis(400)).await;
        let errands = Errands::new();
        let begin = BegunUpload::begin(&errands, &upstream, ("b", "k"), StoreAs::default());
        assert!(tokio::time::timeout(Duration::from_millis(50), begin).await.is_err());
        errands.settled().await;
        assert!(next(&mut requests).await.starts_with("POST /b/k?uploads"));
        assert!(next(&mut requests).await.starts_with("DELETE /b/k?uploadId=u1"));
    }
}
