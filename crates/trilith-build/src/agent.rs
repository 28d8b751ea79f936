//! The agent as a layer: one program, the same bytes in the images of every project.
//!
//! In an image of layers it is one of level versioned like any other: an input, and at the bottom,
//! so that it is shared by all images and outlives every change of a project. What an engine builds
//! of a Dockerfile is an image of its own, complete and with tags of its own; the agent is put on top
//! of that, as the one layer of another image, so that a new agent runs no step. What starts it is
//! `[config]`'s, and put there with it.

use bytes::Bytes;
use trilith_agent_bin::{MODE, PATH};
use trilith_core::{
    ConfigRecipe, DestinationError, LayerRecipe, Level, Owner, Platform, Scheme, Tree,
};
use trilith_oci::layer::LayerContent;

use crate::error::Error;
use crate::inputs::{LoadedLayer, LoadedTree};
use crate::settings::Settings;

/// What its layer says it is a copy of.
const NAME: &str = "trilith-agent";
/// What the source tag of what it is put on ends in, where tags do not tell images with it from
/// those without.
const WITHOUT: &str = "-without-agent";

/// Returns the layer that holds the agent, of the level at which `settings` have it.
///
/// # Errors
/// None that a caller could cause.
pub(crate) fn layer(settings: &Settings) -> Result<LoadedLayer, Error> {
    let program = trilith_agent_bin::binary();
    let refused = |error: DestinationError| trilith_oci::Error::LayerEntry {
        path: PATH.to_owned(),
        reason: error.to_string(),
    };
    Ok(LoadedLayer {
        recipe: LayerRecipe {
            level: match settings.dockerfile {
                Some(_) => Level::Source,
                None => Level::Versioned,
            },
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

/// Returns the settings of the image that the agent is put on, where `settings` ask for one on top
/// of what an engine builds: that of the Dockerfile as it is.
pub(crate) fn below(settings: &Settings) -> Option<Settings> {
    if !settings.agent || settings.dockerfile.is_none() {
        return None;
    }
    let mut below = Settings {
        agent: false,
        config: ConfigRecipe::default(),
        other_tags: Vec::new(),
        ..settings.clone()
    };
    if settings.scheme != Scheme::Trilith {
        below.suffix.push_str(WITHOUT);
    }
    Some(below)
}

/// Checks that an agent that is asked for can be put into the image.
///
/// # Errors
/// [`Error::AgentPlatform`].
pub(crate) fn check(settings: &Settings) -> Result<(), Error> {
    if !settings.agent {
        return Ok(());
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
