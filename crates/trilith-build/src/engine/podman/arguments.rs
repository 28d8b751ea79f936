//! The command line of a build. Never a secret on it: everybody on the machine can read it.

use std::ffi::OsString;
use std::path::Path;

use trilith_core::Repository;
use trilith_oci::Kind;

use super::super::redact::Redactor;
use super::super::{
    BuildRequest, BuildSecret, CacheEntry, EngineError, EngineKind, Feature, Network, SecretSource,
};
use super::flags::Flags;
use super::workspace::Workspace;

/// What steps cannot be given by an old Podman.
const HOST_GATEWAY: &str = "host-gateway";

/// The command line of a build while it is put together.
#[derive(Debug)]
pub(super) struct Arguments(pub(super) Vec<OsString>);

impl Arguments {
    pub(super) fn new(words: &[&str]) -> Self {
        Self(words.iter().map(Into::into).collect())
    }

    pub(super) fn flag(&mut self, flag: impl Into<OsString>) {
        self.0.push(flag.into());
    }

    /// Adds a flag and its value, which may begin with anything.
    pub(super) fn option(&mut self, flag: &str, value: impl Into<OsString>) {
        self.flag(flag);
        self.flag(value);
    }

    /// Adds a flag whose value is a name, `=` and a value.
    pub(super) fn pair(&mut self, flag: &str, name: &str, value: &str) {
        self.option(flag, format!("{name}={value}"));
    }
}

/// Returns the arguments of the build of `request`, but those on TLS, credentials and pulling.
pub(super) fn of_build(
    request: &BuildRequest<'_>,
    workspace: &Workspace,
    flags: &Flags,
    (address, redactor): (&str, &Redactor),
) -> Result<Arguments, EngineError> {
    let mut arguments = Arguments::new(&["build", "--force-rm", "--layers", "--format=docker"]);
    if flags.has("identity-label") {
        // Podman's version is no part of what was asked for.
        arguments.flag("--identity-label=false");
    }
    arguments.option("--platform", request.platform.to_string());
    if let Some(target) = request.target {
        arguments.option("--target", target);
    }
    for (name, value) in request.args {
        arguments.pair("--build-arg", name, value);
    }
    for (name, value) in request.labels {
        arguments.pair("--label", name, value);
    }
    for context in request.named_contexts {
        let image = format!("docker-image://{}", context.image);
        arguments.pair("--build-context", &context.stage, &image);
    }
    for (name, address) in request.extra_hosts {
        arguments.option("--add-host", format!("{name}:{address}"));
    }
    match request.network {
        Network::Default => {}
        Network::None => arguments.flag("--network=none"),
        Network::Host => arguments.flag("--network=host"),
    }
    if request.no_cache {
        arguments.flag("--no-cache");
    }
    add_secrets(&mut arguments, request, workspace, redactor)?;
    add_caches(&mut arguments, request, flags, address)?;
    Ok(arguments)
}

/// Checks that Podman can do what is asked for.
pub(super) fn check(
    request: &BuildRequest<'_>,
    flags: &Flags,
    address: &str,
) -> Result<(), EngineError> {
    let features = flags.features();
    let needs = [
        (
            !request.named_contexts.is_empty(),
            Feature::NamedContexts,
            "replace stages by images",
        ),
        (
            !request.secrets.is_empty(),
            Feature::Secrets,
            "mount build secrets",
        ),
        (!request.ssh.is_empty(), Feature::Ssh, "mount SSH agents"),
        (
            !request.cache_from.is_empty(),
            Feature::CacheImport,
            "import a cache",
        ),
        (
            !request.cache_to.is_empty(),
            Feature::CacheExport,
            "export a cache",
        ),
    ];
    match needs
        .into_iter()
        .find(|(needed, feature, _)| *needed && !features.contains(feature))
    {
        Some((_, _, what)) => Err(unsupported(address, what)),
        None => Ok(()),
    }
}

/// Returns the error of something that Podman is too old or too different for.
pub(super) fn unsupported(address: &str, what: &'static str) -> EngineError {
    EngineError::Unsupported {
        engine: EngineKind::Podman,
        address: address.to_owned(),
        what,
    }
}

/// Returns what Podman cannot do, where that is why it refused `request`.
pub(super) fn refused(
    request: &BuildRequest<'_>,
    message: &str,
    text: &str,
) -> Option<&'static str> {
    let has_gateway = request
        .extra_hosts
        .iter()
        .any(|(_, address)| address == HOST_GATEWAY);
    if has_gateway && message.contains("invalid IP address in add-host") {
        return Some("give steps the address of the host (`host-gateway`)");
    }
    if message.contains("Unknown instruction") && has_heredoc(text) {
        return Some("read here-documents (Podman 4.9 can)");
    }
    None
}

/// Returns whether a Dockerfile that can be read has a here-document. Where it has not, each
/// line begins with an instruction, so Podman knows them too.
fn has_heredoc(text: &str) -> bool {
    text.contains("<<") && crate::dockerfile::Dockerfile::parse(text).is_ok()
}

fn add_secrets(
    arguments: &mut Arguments,
    request: &BuildRequest<'_>,
    workspace: &Workspace,
    redactor: &Redactor,
) -> Result<(), EngineError> {
    for (number, BuildSecret { id, source }) in request.secrets.iter().enumerate() {
        let path = match source {
            SecretSource::File(path) => {
                // Only to know it when a step prints it; Podman says if it cannot be read.
                if let Ok(text) = std::fs::read_to_string(path) {
                    redactor.hide(&text);
                }
                path.clone()
            }
            SecretSource::Value(secret) => {
                redactor.hide(secret.expose());
                workspace.write(&format!("secret-{number}"), secret.expose().as_bytes())?
            }
        };
        arguments.option("--secret", secret(id, &path));
    }
    for agent in request.ssh {
        let mut value = OsString::from(format!("{}=", agent.id));
        value.push(&agent.socket);
        arguments.option("--ssh", value);
    }
    Ok(())
}

/// Returns what names the secret `id` and its file on a command line.
pub(super) fn secret(id: &str, path: &Path) -> OsString {
    let mut value = OsString::from(format!("id={id},src="));
    value.push(path);
    value
}

fn add_caches(
    arguments: &mut Arguments,
    request: &BuildRequest<'_>,
    flags: &Flags,
    address: &str,
) -> Result<(), EngineError> {
    for (flag, entries) in [
        ("cache-from", request.cache_from),
        ("cache-to", request.cache_to),
    ] {
        if entries.len() > 1 && !flags.is_list(flag) {
            return Err(unsupported(address, "use several caches at once"));
        }
        for entry in entries {
            let repository = cache_repository(entry, address)?;
            arguments.option(&format!("--{flag}"), repository.to_string());
        }
    }
    Ok(())
}

/// Returns the repository that a cache is in, the one kind of cache that Podman knows.
pub(super) fn cache_repository(
    entry: &CacheEntry,
    address: &str,
) -> Result<Repository, EngineError> {
    let ("registry", Some(name)) = (entry.kind.as_str(), entry.options.get("ref")) else {
        return Err(unsupported(
            address,
            "use a cache that is not in a registry",
        ));
    };
    name.parse().map_err(|_| EngineError::Failed {
        engine: EngineKind::Podman,
        operation: "use cache",
        object: name.clone(),
        reason: "Podman keeps a cache in a repository of its own: name it without a tag".to_owned(),
        kind: Kind::Usage,
    })
}
