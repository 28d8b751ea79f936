//! Podman, by its command line.
//!
//! The command line and not the socket: it is there wherever Podman is, rootless too, while the
//! socket has to be enabled; it says more of a build (the socket hands on its text alone); and a
//! `CONTAINER_HOST` makes it speak to a socket anyway. No version is asked for. What
//! `podman build` can do is read off its help; what that cannot tell is found out by its refusal.
//!
//! | what | Podman 4.3 | 5.4 |
//! | --- | --- | --- |
//! | stages replaced by images (`--build-context NAME=docker-image://…`, by tag or digest, also in `COPY --from` and `--mount=from`) | yes | yes |
//! | secrets, SSH agents, cache mounts, several platforms | yes | yes |
//! | a cache in a repository (`--cache-from`, `--cache-to`) | one of each | several |
//! | caches in a directory or in the image | no | no |
//! | here-documents | no, refused in the middle of the build | yes |
//! | `host-gateway` for extra hosts | no | yes |
//! | a remote one tells the digest of what it pushed | no, the registry is asked | yes |
//! | labels with `$` or line ends in them | yes | no, replaces them |
//! | `RUN` in images with `HEALTHCHECK`, `SHELL`, `ONBUILD` | only as `--format docker` | as 4.3 |
//!
//! So of what is used here, here-documents alone need the 4.9 that others ask for (they came
//! with Buildah 1.33), and only a build that has some is refused.
//!
//! # Decisions
//! - Images are in Docker's format: the OCI format has no place for `HEALTHCHECK`, `SHELL` and
//!   `ONBUILD`, and the other engines make the same.
//! - The context is unpacked into a private directory rather than sent to stdin, which Podman
//!   reads into memory before it unpacks it (300 MB of context took 1 GB). The Dockerfile lies beside it and the
//!   ignore file hides nothing, so steps see exactly what was hashed; without one, a `.containerignore`
//!   among the files would have a say. (`COPY` takes setuid and setgid off all the same.) Cache mounts stay where Podman puts them (`TMPDIR`).
//! - Values of secrets and credentials are in private files there, never on a command line.
//! - Nothing here reads the environment, but Podman does: `CONTAINER_HOST`, `XDG_*`, `TMPDIR`.

mod arguments;
mod auth;
mod containers;
mod failure;
mod flags;
mod images;
mod kept;
mod output;
mod prepare;
mod process;
mod stop;
mod workspace;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::OnceCell;
use trilith_core::{Digest, Platform, Reference};
use trilith_oci::Kind;
use trilith_oci::registry::RegistryClient;

use self::arguments::{Arguments, unsupported};
use self::flags::Flags;
use self::output::BuildOutput;
use self::prepare::add_transport;
use self::process::Program;
use self::workspace::Workspace;
use super::redact::Redactor;
use super::{
    BuildRequest, BuiltImage, Engine, EngineError, EngineIdentity, EngineKind, Export, Feature,
    Observer, RunningImage,
};

#[derive(Deserialize)]
struct Container {
    #[serde(rename = "ImageID")]
    image_id: String,
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

/// How Podman is called.
#[derive(Clone, Debug)]
pub struct PodmanOptions {
    /// The program, found by `PATH` where it is just a name.
    pub program: PathBuf,
    /// Variables over those of this process, `None` for those to be removed.
    pub environment: Vec<(String, Option<String>)>,
    /// Where contexts are unpacked.
    pub temporary: PathBuf,
}

impl PodmanOptions {
    /// Returns the options for `podman` in the environment of this process, with contexts in
    /// `temporary`.
    #[must_use]
    pub fn new(temporary: PathBuf) -> Self {
        Self {
            program: "podman".into(),
            environment: Vec::new(),
            temporary,
        }
    }
}

/// Podman, by its command line.
pub struct Podman {
    program: Program,
    temporary: PathBuf,
    /// Knows credentials, and which registries are spoken to over plain HTTP.
    registry: RegistryClient,
    flags: OnceCell<Flags>,
    host: OnceCell<Info>,
}

/// What `podman info` says.
#[derive(Deserialize)]
struct Info {
    host: Host,
    version: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Host {
    arch: String,
    #[serde(default)]
    variant: String,
    os: String,
    #[serde(default)]
    remote_socket: Socket,
    #[serde(default)]
    service_is_remote: bool,
}

#[derive(Default, Deserialize)]
struct Socket {
    #[serde(default)]
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

impl Podman {
    /// Returns Podman as `options` say. Nothing is called yet.
    #[must_use]
    pub fn new(options: PodmanOptions, registry: RegistryClient) -> Self {
        Self {
            program: Program {
                path: options.program,
                environment: options.environment,
            },
            temporary: options.temporary,
            registry,
            flags: OnceCell::new(),
            host: OnceCell::new(),
        }
    }

    /// Returns the flags of `podman build`, asked for once.
    async fn flags(&self) -> Result<&Flags, EngineError> {
        let load = || async {
            let output = self.program.output(["build", "--help"]).await?;
            let output = self.answered(output)?;
            Ok(Flags::parse(&String::from_utf8_lossy(&output.stdout)))
        };
        self.flags.get_or_try_init(load).await
    }

    /// Returns what `podman info` says, asked for once.
    async fn info_of_host(&self) -> Result<&Info, EngineError> {
        let load = || async {
            let output = self.program.output(["info", "--format", "json"]).await?;
            let output = self.answered(output)?;
            serde_json::from_slice(&output.stdout).map_err(|error| EngineError::Unreachable {
                engine: EngineKind::Podman,
                address: self.program.address(),
                source: Some(error.into()),
            })
        };
        self.host.get_or_try_init(load).await
    }

    /// Returns what a call printed that fails only where Podman does not work at all.
    fn answered(&self, output: Output) -> Result<Output, EngineError> {
        if output.status.success() {
            return Ok(output);
        }
        Err(EngineError::Unreachable {
            engine: EngineKind::Podman,
            address: self.program.address(),
            source: Some(failure::last_error(&output.stderr).into()),
        })
    }

    /// Runs a short call on `object`.
    async fn call(
        &self,
        operation: &'static str,
        object: &str,
        arguments: &[&str],
    ) -> Result<Output, EngineError> {
        let output = self.program.output(arguments).await?;
        failure::check(operation, object, output)
    }

    /// Builds an image that is what was asked for.
    async fn build_and_verify(
        &self,
        request: &BuildRequest<'_>,
        observer: Observer<'_>,
    ) -> Result<BuiltImage, EngineError> {
        let (workspace, text) = unpack(&self.temporary, request).await?;
        let redactor = Redactor::default();
        let prepared = self.prepare(request, &workspace, &text, &redactor).await?;
        let mut output = BuildOutput::new(observer, redactor);
        self.pull(&prepared, request, &mut output).await?;
        let (arguments, bases) = (prepared.arguments, prepared.images.bases);
        let built = self.run(request, arguments, &workspace, &mut output, &text);
        let image = built.await?;
        self.verify(&image, request, &bases).await?;
        Ok(image)
    }

    /// Runs the build itself and returns the image.
    async fn run(
        &self,
        request: &BuildRequest<'_>,
        mut arguments: Arguments,
        workspace: &Workspace,
        output: &mut BuildOutput<'_>,
        text: &str,
    ) -> Result<BuiltImage, EngineError> {
        let id = workspace.join("id");
        // Hides nothing: an empty one is as good as none to Podman 4.3.
        let hides_nothing = format!("{}\n", workspace.path().display());
        let ignore = workspace.write("ignore", hides_nothing.as_bytes())?;
        arguments.option("--ignorefile", ignore);
        arguments.option("--file", workspace.join("Dockerfile"));
        arguments.option("--iidfile", &id);
        arguments.flag(workspace.join("context"));
        let mark = Some(workspace.path());
        let run = self
            .program
            .run(arguments.0, mark, |bytes| output.push(bytes));
        let status = run.await?;
        let made = fs::exists(&id).map_err(EngineError::io("read", &id))?;
        if !status.success() || !made {
            let mut failed = output.fail();
            self.program.remove_left(workspace.path()).await?;
            if failed.message.is_empty() {
                // Somebody ended it. On `SIGTERM` 4.3 calls that a success.
                return Err(failure::ended(status));
            }
            let context = workspace.join("context").display().to_string();
            failed.message = failed.message.replace(&context, "the context");
            if let Some(what) = arguments::refused(request, &failed.message, text) {
                return Err(unsupported(&self.program.address(), what));
            }
            return Err(failure::of_build(failed));
        }
        output.finish();
        let text = fs::read_to_string(&id).map_err(EngineError::io("read", &id))?;
        parse_id(text.trim()).map(|id| BuiltImage { id })
    }
}

#[async_trait]
impl Engine for Podman {
    fn kind(&self) -> EngineKind {
        EngineKind::Podman
    }

    async fn identity(&self) -> Result<EngineIdentity, EngineError> {
        // Both are needed for whatever comes next, and take their time.
        let (info, _) = tokio::try_join!(self.info_of_host(), self.flags())?;
        Ok(EngineIdentity {
            kind: EngineKind::Podman,
            version: info.version.version.clone(),
            address: if info.host.service_is_remote {
                info.host.remote_socket.path.clone()
            } else {
                self.program.address()
            },
        })
    }

    async fn platforms(&self) -> Result<Vec<Platform>, EngineError> {
        let host = &self.info_of_host().await?.host;
        let variant = Some(host.variant.as_str()).filter(|variant| !variant.is_empty());
        Ok(vec![Platform::new(&host.os, &host.arch, variant)])
    }

    async fn can(&self, feature: Feature) -> Result<bool, EngineError> {
        Ok(self.flags().await?.features().contains(&feature))
    }

    async fn build(
        &self,
        request: &BuildRequest<'_>,
        export: Export<'_>,
        observer: Observer<'_>,
    ) -> Result<BuiltImage, EngineError> {
        let address = self.program.address();
        if export != Export::Keep {
            return Err(unsupported(&address, "build an image without keeping it"));
        }
        arguments::check(request, self.flags().await?, &address)?;
        let once = self.build_and_verify(request, observer).await;
        match once {
            // Its cache knows no platforms: steps that were run on the same files for another one
            // are the same to it.
            Err(EngineError::Failed {
                kind: Kind::Corrupt,
                ..
            }) if !request.no_cache => {
                let anew = BuildRequest {
                    no_cache: true,
                    ..request.clone()
                };
                self.build_and_verify(&anew, observer).await
            }
            once => once,
        }
    }

    async fn find(&self, reference: &Reference) -> Result<Option<Digest>, EngineError> {
        if !self.exists(reference).await? {
            return Ok(None);
        }
        let images = self.inspect(&[reference.to_string()]).await?;
        // It may have gone in between.
        images.first().map(|image| parse_id(&image.id)).transpose()
    }

    async fn tag(&self, image: &BuiltImage, reference: &Reference) -> Result<(), EngineError> {
        let name = reference.to_string();
        let arguments = ["tag", image.id.hex(), &name];
        self.call("tag", &name, &arguments).await.map(drop)
    }

    async fn push(
        &self,
        reference: &Reference,
        observer: Observer<'_>,
    ) -> Result<Digest, EngineError> {
        let name = reference.to_string();
        let workspace = Workspace::new(&self.temporary)?;
        let redactor = Redactor::default();
        let repositories = BTreeSet::from([reference.repository().clone()]);
        let auth = auth::write(&self.registry, &repositories, &workspace, &redactor).await?;
        let digest = workspace.join("digest");
        let mut arguments = Arguments::new(&["push"]);
        arguments.option("--digestfile", &digest);
        let plain = self.registry.is_plain_http(reference.registry());
        add_transport(&mut arguments, plain, auth.as_deref());
        arguments.flag(&name);
        let mut output = BuildOutput::new(observer, redactor);
        output.begin(format!("push {name}"));
        let run = self
            .program
            .run(arguments.0, None, |bytes| output.push(bytes));
        if !run.await?.success() {
            let message = output.fail().message;
            return Err(failure::of_call("push", &name, &message));
        }
        output.finish();
        // A remote Podman 4.3 takes the file's name, and writes nothing.
        let text = fs::read_to_string(&digest).unwrap_or_default();
        let digest = match text.trim() {
            "" => None,
            text => Some(text.parse().map_err(|_| malformed("push", &name, text))?),
        };
        self.pushed(reference, digest).await
    }

    async fn save(&self, image: &BuiltImage, archive: &Path) -> Result<(), EngineError> {
        let mut arguments = Arguments::new(&["save", "--quiet", "--format=docker-archive"]);
        arguments.option("--output", archive);
        arguments.flag(image.id.hex());
        let arguments: Vec<OsString> = arguments.0;
        let output = self.program.output(&arguments).await?;
        if output.status.success() {
            return Ok(());
        }
        let message = failure::last_error(&output.stderr);
        Err(failure::of_call("save", &image.id.to_string(), &message))
    }

    async fn load(&self, archive: &Path) -> Result<(), EngineError> {
        let name = archive.display().to_string();
        let mut arguments = Arguments::new(&["load", "--quiet"]);
        arguments.option("--input", archive);
        let output = self.program.output(&arguments.0).await?;
        if output.status.success() {
            return Ok(());
        }
        let message = failure::last_error(&output.stderr);
        Err(failure::of_call("load", &name, &message))
    }

    async fn running(&self) -> Result<Vec<RunningImage>, EngineError> {
        let object = "running containers";
        let output = self
            .call("list", object, &["ps", "--format", "json"])
            .await?;
        let containers: Vec<Container> = serde_json::from_slice(&output.stdout)
            .map_err(|error| malformed("list", object, &error.to_string()))?;
        let mut running = Vec::new();
        for container in containers {
            running.push(RunningImage {
                id: parse_id(&container.image_id)?,
                labels: container.labels.unwrap_or_default(),
            });
        }
        Ok(running)
    }

    async fn untag(&self, reference: &Reference) -> Result<(), EngineError> {
        if !self.exists(reference).await? {
            return Ok(());
        }
        let name = reference.to_string();
        // What it was built from stays: it is the cache.
        let removed = self
            .call("untag", &name, &["rmi", "--no-prune", &name])
            .await;
        match removed {
            Ok(_) => Ok(()),
            // A container may still need the image, which then stays without a name.
            Err(_) => self
                .call("untag", &name, &["untag", &name, &name])
                .await
                .map(drop),
        }
    }
}

/// Unpacks the context and the Dockerfile, and returns its text too.
async fn unpack(
    parent: &Path,
    request: &BuildRequest<'_>,
) -> Result<(Arc<Workspace>, String), EngineError> {
    let workspace = Arc::new(Workspace::new(parent)?);
    let (context, shared) = (Arc::clone(&request.context), Arc::clone(&workspace));
    let unpacked = tokio::task::spawn_blocking(move || {
        let dockerfile = shared.join("Dockerfile");
        context.write_directory(&shared.directory("context")?)?;
        context.write_dockerfile(&dockerfile)?;
        fs::read(&dockerfile).map_err(EngineError::io("read", &dockerfile))
    });
    let text = unpacked.await.map_err(|error| {
        EngineError::io("write the context into", workspace.path())(error.into())
    })??;
    Ok((workspace, String::from_utf8_lossy(&text).into_owned()))
}

/// Parses the id of an image, with or without its algorithm.
fn parse_id(id: &str) -> Result<Digest, EngineError> {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    let digest = format!("sha256:{id}").parse();
    digest.map_err(|_| malformed("build", "image", id))
}

fn malformed(operation: &'static str, object: &str, answer: &str) -> EngineError {
    EngineError::Failed {
        engine: EngineKind::Podman,
        operation,
        object: object.to_owned(),
        reason: format!("`{answer}` is no digest"),
        kind: Kind::Corrupt,
    }
}
