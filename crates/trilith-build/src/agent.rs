//! The agent as a layer: one program, the same bytes below the layers of every project.
//!
//! It is a layer of level versioned like any other: an input, and at the bottom, so that it is
//! shared by all images and outlives every change of a project. What starts it is `[config]`'s.

use bytes::Bytes;
use trilith_agent_bin::{MODE, PATH};
use trilith_core::{DestinationError, LayerRecipe, Level, Owner, Platform, Tree};
use trilith_oci::layer::LayerContent;

use crate::error::Error;
use crate::inputs::{LoadedLayer, LoadedTree};
use crate::settings::Settings;

/// What its layer says it is a copy of.
const NAME: &str = "trilith-agent";

/// Returns the layer that holds the agent.
///
/// # Errors
/// None that a caller could cause.
pub(crate) fn layer() -> Result<LoadedLayer, Error> {
    let program = trilith_agent_bin::binary();
    let refused = |error: DestinationError| trilith_oci::Error::LayerEntry {
        path: PATH.to_owned(),
        reason: error.to_string(),
    };
    Ok(LoadedLayer {
        recipe: LayerRecipe {
            level: Level::Versioned,
            copy: NAME.to_owned(),
            from: None,
            to: PATH.parse().map_err(refused)?,
            owner: Owner::default(),
        },
        tree: Some(LoadedTree {
            content: LayerContent::Bytes(Bytes::from_static(program)),
            tree: Tree::of_file(MODE, program),
        }),
    })
}

/// Checks that an agent that is asked for can be put into the image.
///
/// # Errors
/// [`Error::AgentInDockerfile`] and [`Error::AgentPlatform`].
pub(crate) fn check(settings: &Settings) -> Result<(), Error> {
    if !settings.agent {
        return Ok(());
    }
    if settings.dockerfile.is_some() {
        return Err(Error::AgentInDockerfile {
            project: settings.project.clone(),
        });
    }
    // The program uses nothing that is not in every variant of the processor.
    let host = Platform::host();
    let has_none = |platform: &&Platform| {
        (platform.os(), platform.architecture()) != (host.os(), host.architecture())
    };
    match settings.platforms.iter().find(has_none) {
        Some(platform) => Err(Error::AgentPlatform {
            platform: Box::new(platform.clone()),
            host: Box::new(host),
        }),
        None => Ok(()),
    }
}
