//! The images that Podman keeps, and whether one is what was asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use trilith_core::{Digest, Reference};
use trilith_oci::{ImageStore as _, Kind, Name};

use super::super::{BuildRequest, BuiltImage, EngineError, EngineKind};
use super::{Podman, failure};

/// What `podman image inspect` says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Image {
    pub(super) id: String,
    os: String,
    architecture: String,
    labels: Option<BTreeMap<String, String>>,
    repo_tags: Option<Vec<String>>,
}

impl Podman {
    /// Returns whether there is an image of this name.
    pub(super) async fn exists(&self, image: &Reference) -> Result<bool, EngineError> {
        let name = image.to_string();
        let output = self.program.output(["image", "exists", &name]).await?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => {
                let message = failure::last_error(&output.stderr);
                Err(failure::of_call("find", &name, &message))
            }
        }
    }

    /// Returns what is kept under `names`, those of them that are there.
    pub(super) async fn inspect(&self, names: &[String]) -> Result<Vec<Image>, EngineError> {
        let arguments = ["image", "inspect"].map(str::to_owned);
        let output = self.program.output(arguments.iter().chain(names)).await?;
        let images = serde_json::from_slice(&output.stdout);
        images.map_err(|_| {
            let message = failure::last_error(&output.stderr);
            failure::of_call("inspect", &names.join(" "), &message)
        })
    }

    /// Checks that an image is what was asked for, and was built on images for the same platform:
    /// Podman takes what there is, and writes onto the result what was asked for.
    pub(super) async fn verify(
        &self,
        image: &BuiltImage,
        request: &BuildRequest<'_>,
        bases: &BTreeSet<Reference>,
    ) -> Result<(), EngineError> {
        let wrong = |object: &str, reason: String| EngineError::Failed {
            engine: EngineKind::Podman,
            operation: "build",
            object: object.to_owned(),
            reason,
            kind: Kind::Corrupt,
        };
        let id = image.id.hex();
        let bases = bases.iter().map(Reference::to_string);
        let names: Vec<String> = std::iter::once(id.to_owned()).chain(bases).collect();
        let found = self.inspect(&names).await?;
        let own = found.iter().find(|found| found.id == id);
        let own = own.ok_or_else(|| wrong(id, "it does not keep the image".to_owned()))?;
        let platform = request.platform;
        for image in &found {
            let Image {
                os,
                architecture,
                repo_tags,
                ..
            } = image;
            if (os.as_str(), architecture.as_str()) != (platform.os(), platform.architecture()) {
                let name = repo_tags.iter().flatten().next().unwrap_or(&image.id);
                let reason = format!("the image is for {os}/{architecture}, not {platform}");
                return Err(wrong(name, reason));
            }
        }
        let empty = BTreeMap::new();
        let labels = own.labels.as_ref().unwrap_or(&empty);
        match request
            .labels
            .iter()
            .find(|(name, value)| labels.get(*name) != Some(value))
        {
            Some((name, _)) => Err(wrong(
                id,
                format!("label `{name}` is not what it was set to"),
            )),
            None => Ok(()),
        }
    }

    /// Checks that the registry has what was pushed, and returns its digest, which Podman may
    /// not have told.
    pub(super) async fn pushed(
        &self,
        reference: &Reference,
        digest: Option<Digest>,
    ) -> Result<Digest, EngineError> {
        let wrong = |reason: String, kind| EngineError::Failed {
            engine: EngineKind::Podman,
            operation: "push",
            object: reference.to_string(),
            reason,
            kind,
        };
        let name = match (digest, reference.tag()) {
            (Some(digest), _) => Name::Digest(digest),
            (None, Some(tag)) => Name::Tag(tag.clone()),
            (None, None) => return Err(wrong("it has no tag".to_owned(), Kind::Usage)),
        };
        let looked = async {
            let repository = self.registry.repository(reference.repository())?;
            repository.resolve(&name).await
        };
        match looked.await {
            Ok(Some(found)) => Ok(found.digest),
            Ok(None) => {
                let reason = "it is not in the registry afterwards".to_owned();
                Err(wrong(reason, Kind::Corrupt))
            }
            Err(error) => {
                let reason = format!("the registry cannot be asked afterwards: {error}");
                Err(wrong(reason, error.kind()))
            }
        }
    }
}
