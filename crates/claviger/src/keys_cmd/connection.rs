use std::sync::Arc;

use anyhow::Context as _;
use claviger_env::SystemClock;
use claviger_gateway::key_client::KeyClient;
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
}
