use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use claviger_env::SystemClock;
use claviger_gateway::key_client::{ClientError, KeyClient};
use claviger_keyapi::KeyServiceError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Operator;
use crate::exit::Exit;

/// An operator's connection.
pub(super) struct Connection(Arc<KeyClient>);

impl Connection {
    pub(super) fn open(operator: &Operator) -> Result<Self, Exit> {
        KeyClient::open_operator(&operator.address, &operator.identity, Arc::new(SystemClock))
            .context("no usable operator identity")
            .map(Self)
            .map_err(Exit::usage)
    }

    /// Asks one route. Afterwards renews the certificate if half its life is over, so that an operator who works now and
    /// then keeps his.
    pub(super) async fn ask<A: DeserializeOwned>(
        &self,
        path: &str,
        request: &(impl Serialize + Sync),
    ) -> Result<A, Exit> {
        let answer = self.0.transport().call(path, request).await.map_err(Exit::failed)?.value;
        if let Err(error) = self.0.renew_if_due().await {
            tracing::warn!(%error, "the operator's certificate could not be renewed");
        }
        Ok(answer)
    }

    /// The same for what the service may not have ready yet: asks again for a minute, as it says.
    pub(super) async fn ask_patiently<A: DeserializeOwned>(
        &self,
        path: &str,
        request: &(impl Serialize + Sync),
    ) -> Result<A, Exit> {
        let mut patience_ms: u64 = 60_000;
        loop {
            match self.0.transport().call(path, request).await {
                Ok(answer) => return Ok(answer.value),
                Err(ClientError::Service(KeyServiceError::Unavailable { retry_after_ms, .. }))
                    if patience_ms > 0 =>
                {
                    let wait_ms = retry_after_ms.clamp(100, 5_000);
                    patience_ms = patience_ms.saturating_sub(wait_ms);
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                Err(error) => return Err(Exit::failed(error)),
            }
        }
    }
}
