//! What is done before a build: its command line, and images that it cannot pull itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use trilith_core::{Reference, Repository};
use trilith_oci::Kind;

use super::super::redact::Redactor;
use super::super::{BuildRequest, EngineError, EngineKind};
use super::arguments::{self, Arguments};
use super::images::{self, Images, Supply};
use super::output::BuildOutput;
use super::workspace::Workspace;
use super::{Podman, auth, failure};

/// A build that is ready to run.
pub(super) struct Prepared {
    pub(super) arguments: Arguments,
    pub(super) images: Images,
    supply: Supply,
    /// A file with credentials.
    auth: Option<PathBuf>,
}

impl Podman {
    /// Returns how to run a build whose files are in `workspace`.
    pub(super) async fn prepare(
        &self,
        request: &BuildRequest<'_>,
        workspace: &Workspace,
        text: &str,
        redactor: &Redactor,
    ) -> Result<Prepared, EngineError> {
        let (address, flags) = (self.program.address(), self.flags().await?);
        let mut arguments = arguments::of_build(request, workspace, flags, (&address, redactor))?;
        // So that a working container can be told to be of this build; see `stop`.
        let mark = workspace.write("mark", b"")?;
        if flags.has("secret") {
            arguments.option("--secret", arguments::secret("trilith-build", &mark));
        }
        let caches = request.cache_from.iter().chain(request.cache_to);
        let caches = caches.map(|entry| arguments::cache_repository(entry, &address));
        let caches: Vec<Repository> = caches.collect::<Result<_, _>>()?;
        let images = images::images(request, text);
        let is_plain = |registry: &str| self.registry.is_plain_http(registry);
        let supply = images::supply(images.as_ref(), &caches, request.pull, is_plain);
        let supply = supply.map_err(|cache| EngineError::Failed {
            engine: EngineKind::Podman,
            operation: "use cache",
            object: cache.to_string(),
            reason: "it is at a registry of plain HTTP, and images of the build are not".to_owned(),
            kind: Kind::Usage,
        })?;
        let images = images.unwrap_or_default();
        let repositories = images.all.iter().map(Reference::repository).chain(&caches);
        let repositories: BTreeSet<Repository> = repositories.cloned().collect();
        let auth = auth::write(&self.registry, &repositories, workspace, redactor).await?;
        add_transport(&mut arguments, supply.plain, auth.as_deref());
        if supply.pull {
            arguments.flag("--pull=always");
        }
        Ok(Prepared {
            arguments,
            images,
            supply,
            auth,
        })
    }

    /// Pulls the images that a build cannot pull itself.
    pub(super) async fn pull(
        &self,
        prepared: &Prepared,
        request: &BuildRequest<'_>,
        output: &mut BuildOutput<'_>,
    ) -> Result<(), EngineError> {
        for (image, plain) in &prepared.supply.first {
            if !request.pull && self.exists(image).await? {
                continue;
            }
            output.begin(format!("pull {image}"));
            let mut arguments = Arguments::new(&["pull"]);
            arguments.option("--platform", request.platform.to_string());
            add_transport(&mut arguments, *plain, prepared.auth.as_deref());
            arguments.flag(image.to_string());
            let run = self
                .program
                .run(arguments.0, None, |bytes| output.push(bytes));
            if !run.await?.success() {
                let message = output.fail().message;
                return Err(failure::of_call("pull", &image.to_string(), &message));
            }
            output.finish();
        }
        Ok(())
    }
}

/// Adds what a call that talks to registries is told of them.
pub(super) fn add_transport(arguments: &mut Arguments, plain: bool, auth: Option<&Path>) {
    if plain {
        arguments.flag("--tls-verify=false");
    }
    if let Some(file) = auth {
        arguments.option("--authfile", file);
    }
}
