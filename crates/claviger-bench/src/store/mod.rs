//! The null store: enough of S3 for what is measured, in memory. It verifies no signature, and forgets what is written under
//! `put/` and `limited/` at once; a real store's work would hide what stands before it. What is too large for memory lies on
//! disk (`large/`), or only its ends are kept (`ends/`); buckets with a million names hold none of them (`names-1000000`).

mod answers;
mod bodies;
mod buckets;
mod content;
mod names;
mod operations;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Result;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use self::bodies::Limit;
use self::buckets::Buckets;
use crate::options::StoreOptions;
use crate::tls;

/// Everything that the store's connections share.
pub(crate) struct Store {
    buckets: Buckets,
    limit: Limit,
    /// Of what is too large for memory.
    keep_dir: PathBuf,
    /// So many came in.
    requests: AtomicU64,
}

/// Serves until the process is ended.
pub(crate) fn serve(options: &StoreOptions) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let plain = TcpListener::bind(options.http).await?;
        let secure = TcpListener::bind(options.https).await?;
        let acceptor = TlsAcceptor::from(tls::server(&options.tls)?);
        let store = Arc::new(Store {
            buckets: Buckets::default(),
            limit: Limit::new(options.limit),
            keep_dir: options.keep_dir.clone(),
            requests: AtomicU64::new(0),
        });
        let addresses = format!("{}\n{}\n", plain.local_addr()?, secure.local_addr()?);
        let unfinished = options.ready_file.with_extension("new");
        std::fs::write(&unfinished, addresses)?;
        std::fs::rename(unfinished, &options.ready_file)?;
        tokio::select! {
            ended = accept(&plain, &store, None) => ended,
            ended = accept(&secure, &store, Some(acceptor)) => ended,
        }
    })
}

async fn accept(listener: &TcpListener, store: &Arc<Store>, acceptor: Option<TlsAcceptor>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(Arc::clone(store), stream, acceptor.clone()));
    }
}

async fn connection(store: Arc<Store>, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
    match acceptor {
        None => requests(store, stream).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => requests(store, stream).await,
            Err(error) => println!("handshake: {error}"),
        },
    }
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(store: Arc<Store>, stream: S) {
    let service = service_fn(move |request| {
        let store = Arc::clone(&store);
        async move { Ok::<_, Infallible>(operations::answer(&store, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(600)).max_buf_size(1 << 20);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        // Whoever is measured may close when it likes.
        println!("connection: {error}");
    }
}
