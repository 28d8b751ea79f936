//! The address that steps know the machine by: what `host-gateway` stands for.
//!
//! The engine knows it, but its BuildKit wants to be told, and so does a classic builder before 20.10.

use std::net::Ipv4Addr;

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
    subnet: Option<String>,
    gateway: Option<String>,
}

impl Range {
    /// Returns the engine's address in it. Where it was not chosen and the engine has just made the
    /// network, it is not told: the first of the range then.
    fn gateway(&self) -> Option<String> {
        let told = self.gateway.clone().filter(|gateway| !gateway.is_empty());
        told.or_else(|| {
            let (network, _) = self.subnet.as_ref()?.split_once('/')?;
            let network: Ipv4Addr = network.parse().ok()?;
            Some(Ipv4Addr::from(u32::from(network).checked_add(1)?).to_string())
        })
    }
}

impl DockerEngine {
    /// Returns `hosts` with addresses only.
    pub(super) async fn resolve_hosts(
        &self,
        hosts: &[(String, String)],
    ) -> Result<Vec<(String, String)>, EngineError> {
        let mut hosts = hosts.to_vec();
        if hosts.iter().any(|(_, address)| address == HOST_GATEWAY) {
            let mut gateway = None;
            if self.has_buildkit().await? {
                gateway = solve::host_gateway(self).await?;
            }
            if gateway.is_none() {
                gateway = self.bridge_gateway().await?;
            }
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
        let mut ranges = ranges.into_iter().flatten();
        Ok(ranges.find_map(|range| range.gateway()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways() {
        for (range, expected) in [
            (r#"{"Subnet": "172.17.0.0/16"}"#, Some("172.17.0.1")),
            (
                r#"{"Subnet": "10.1.0.0/16", "Gateway": "10.1.9.9"}"#,
                Some("10.1.9.9"),
            ),
            (
                r#"{"Subnet": "10.1.0.0/16", "Gateway": ""}"#,
                Some("10.1.0.1"),
            ),
            (r#"{"Subnet": "fd00::/80"}"#, None),
            ("{}", None),
        ] {
            let parsed: Range = serde_json::from_str(range).unwrap();
            assert_eq!(parsed.gateway().as_deref(), expected, "{range}");
        }
    }
}
