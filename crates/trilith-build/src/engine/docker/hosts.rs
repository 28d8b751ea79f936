//! The address that steps know the machine by: what `host-gateway` stands for.
//!
//! The engine knows it, but its BuildKit wants to be told.

use reqwest::Method;
use serde::Deserialize;

use super::{DockerEngine, Doing};
use crate::engine::EngineError;
use crate::engine::solve;

/// What stands for the address.
const HOST_GATEWAY: &str = "host-gateway";

/// What an engine says of a network.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    #[serde(rename = "IPAM", default)]
    addresses: Addresses,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Addresses {
    config: Option<Vec<Range>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Range {
    gateway: Option<String>,
}

impl DockerEngine {
    /// Returns `hosts` with addresses only.
    pub(super) async fn resolve_hosts(
        &self,
        hosts: &[(String, String)],
    ) -> Result<Vec<(String, String)>, EngineError> {
        let mut hosts = hosts.to_vec();
        if hosts.iter().any(|(_, address)| address == HOST_GATEWAY) {
            let gateway = match solve::host_gateway(self).await? {
                Some(gateway) => Some(gateway),
                None => self.bridge_gateway().await?,
            };
            let what = "tell the address that `host-gateway` stands for";
            let gateway = gateway.ok_or_else(|| self.unsupported(what))?;
            for (_, address) in &mut hosts {
                if address == HOST_GATEWAY {
                    address.clone_from(&gateway);
                }
            }
        }
        Ok(hosts)
    }

    /// Returns the engine's own address in the network that steps have by default.
    async fn bridge_gateway(&self) -> Result<Option<String>, EngineError> {
        let path = "/networks/bridge";
        let request = self.api.request(Method::GET, path).await?;
        let network: Option<Network> = self.api.find(request, Doing("ask", path)).await?;
        let ranges = network.and_then(|network| network.addresses.config);
        let mut gateways = ranges
            .into_iter()
            .flatten()
            .filter_map(|range| range.gateway);
        Ok(gateways.find(|gateway| !gateway.is_empty()))
    }
}
