//! Flags about engines as values: their grammar is that of `docker build`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use trilith_build::EngineOptions;
use trilith_build::engine::{BuildSecret, CacheEntry, Network, SecretSource, SshAgent};
use trilith_core::Reference;
use trilith_oci::registry::Secret;

use crate::args::{EngineArgs, StepNetwork};
use crate::environment;
use crate::output::Failure;

/// The ID of the SSH agent that steps use when they name none.
const DEFAULT_AGENT: &str = "default";

/// Returns what the flags tell an engine.
pub(crate) fn engine_options(args: &EngineArgs) -> Result<EngineOptions, Failure> {
    let secrets = args.secret.iter().map(|text| secret(text));
    let ssh = args.ssh.iter().map(|text| agent(text));
    let hosts = args.add_host.iter().map(|text| host(text));
    let from = args
        .cache_from
        .iter()
        .map(|text| cache("--cache-from", text));
    let to = args.cache_to.iter().map(|text| cache("--cache-to", text));
    Ok(EngineOptions {
        secrets: secrets.collect::<Result<_, _>>()?,
        ssh: ssh.collect::<Result<_, _>>()?,
        extra_hosts: hosts.collect::<Result<_, _>>()?,
        network: match args.network {
            StepNetwork::Default => Network::Default,
            StepNetwork::None => Network::None,
            StepNetwork::Host => Network::Host,
        },
        cache_from: from.collect::<Result<_, _>>()?,
        cache_to: to.collect::<Result<_, _>>()?,
        no_cache: args.no_cache,
        pull: args.pull,
        load: args.load,
    })
}

/// Parses `id=ID[,src=FILE][,env=NAME][,type=file|env]`. Without `src` and `env`, the variable
/// called ID is meant where there is one, else the file of that name.
fn secret(text: &str) -> Result<BuildSecret, Failure> {
    let malformed = |why: &str| Failure::usage(format!("`--secret {text}`: {why}"));
    let mut options = options(text).ok_or_else(|| malformed("it is not KEY=VALUE,..."))?;
    let id = options.remove("id").filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| malformed("it has no `id`"))?;
    let kind = options.remove("type");
    let file = options.remove("src").or(options.remove("source"));
    let variable = options.remove("env");
    if let Some((unknown, _)) = options.first_key_value() {
        return Err(malformed(&format!("`{unknown}` means nothing there")));
    }
    let variable = match (variable, kind.as_deref()) {
        (Some(variable), _) => Some(variable),
        (None, Some("env")) => Some(file.clone().unwrap_or_else(|| id.clone())),
        (None, None | Some("file")) if file.is_some() => None,
        (None, None) => environment::text(&id).map(|_| id.clone()),
        (None, Some("file")) => None,
        (None, Some(_)) => return Err(malformed("its `type` is neither `file` nor `env`")),
    };
    let source = match variable {
        Some(variable) => {
            let value = environment::text(&variable);
            let unset = || malformed(&format!("variable `{variable}` is not set"));
            SecretSource::Value(Secret::new(value.ok_or_else(unset)?))
        }
        None => SecretSource::File(PathBuf::from(file.unwrap_or_else(|| id.clone()))),
    };
    Ok(BuildSecret { id, source })
}

/// Parses `ID[=SOCKET]`; without a socket, that of `SSH_AUTH_SOCK` is meant.
fn agent(text: &str) -> Result<SshAgent, Failure> {
    let (id, socket) = match text.split_once('=') {
        Some((id, socket)) => (id, Some(socket.to_owned())),
        None => (text, environment::text("SSH_AUTH_SOCK")),
    };
    let id = if id.is_empty() { DEFAULT_AGENT } else { id }.to_owned();
    let socket = socket.map(PathBuf::from).ok_or_else(|| {
        Failure::usage(format!(
            "`--ssh {text}` names no socket, and `SSH_AUTH_SOCK` is not set"
        ))
    })?;
    Ok(SshAgent { id, socket })
}

/// Parses `NAME:ADDRESS` or `NAME=ADDRESS`.
fn host(text: &str) -> Result<(String, String), Failure> {
    let malformed = || Failure::usage(format!("`--add-host {text}` is not NAME:ADDRESS"));
    let at = text.find([':', '=']).ok_or_else(malformed)?;
    let (name, address) = (&text[..at], &text[at + 1..]);
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let is_address = address == "host-gateway" || address.parse::<std::net::IpAddr>().is_ok();
    if name.is_empty() || !is_address {
        return Err(malformed());
    }
    Ok((name.to_owned(), address.to_owned()))
}

/// Parses `type=TYPE,KEY=VALUE,...`, or a reference, whose type is `registry`.
fn cache(flag: &str, text: &str) -> Result<CacheEntry, Failure> {
    let malformed = || {
        let grammar = "is neither a reference nor type=TYPE,KEY=VALUE,...";
        Failure::usage(format!("`{flag} {text}` {grammar}"))
    };
    if !text.contains('=') {
        let _checked: Reference = text.parse().map_err(|_| malformed())?;
        return Ok(CacheEntry {
            kind: "registry".to_owned(),
            options: BTreeMap::from([("ref".to_owned(), text.to_owned())]),
        });
    }
    let mut options = options(text).ok_or_else(malformed)?;
    let kind = options.remove("type").ok_or_else(malformed)?;
    Ok(CacheEntry { kind, options })
}

/// Returns the pairs of `KEY=VALUE,...`.
fn options(text: &str) -> Option<BTreeMap<String, String>> {
    text.split(',')
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.trim().to_lowercase(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, expected) in [
            ("a:10.0.0.1", Some(("a", "10.0.0.1"))),
            ("a=10.0.0.1", Some(("a", "10.0.0.1"))),
            ("a:host-gateway", Some(("a", "host-gateway"))),
            ("a:[::1]", Some(("a", "::1"))),
            ("a:::1", Some(("a", "::1"))),
            ("a", None),
            (":10.0.0.1", None),
            ("a:b", None),
        ] {
            let parsed = host(text).ok();
            let parsed = parsed.as_ref().map(|(n, a)| (n.as_str(), a.as_str()));
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn caches() {
        let entry = cache("--cache-to", "type=local,dest=/c,mode=max")
            .ok()
            .unwrap();
        assert_eq!(entry.kind, "local");
        assert_eq!(entry.options.len(), 2);
        let entry = cache("--cache-from", "ghcr.io/a/b:c").ok().unwrap();
        assert_eq!(entry.kind, "registry");
        assert_eq!(entry.options["ref"], "ghcr.io/a/b:c");
        assert!(cache("--cache-from", "ref=a").is_err());
        assert!(cache("--cache-from", "A B").is_err());
    }

    #[test]
    fn secrets() {
        let parsed = secret("id=key,src=/run/key").ok().unwrap();
        assert_eq!(parsed.id, "key");
        assert!(matches!(parsed.source, SecretSource::File(path) if path.ends_with("run/key")));
        for text in [
            "key",
            "src=a",
            "id=",
            "id=a,x=y",
            "id=a,env=NO_SUCH_VARIABLE_HERE",
            "id=a,type=x",
        ] {
            assert!(secret(text).is_err(), "{text}");
        }
    }
}
