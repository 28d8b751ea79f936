//! Taking inputs apart into facts. The table in [`Inputs`] is the format; this follows it.
//!
//! Every struct is taken apart without `..`, so that a new field does not compile until it
//! has a name here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::digest::Digest;
use crate::input_hash::FieldHasher;
use crate::level::Level;
use crate::recipe::{ConfigRecipe, Destination, LayerRecipe, UserRecipe};

use super::list::{Input, InputList, InputsError};
use super::name::escape;
use super::{
    Base, ContextInput, DockerfileInput, DockerfileText, EntryInput, ImageInput, Inputs,
    LayerInput, LockFile, Payload, SourceTree,
};

/// The domain that facts of several fields are hashed under.
const FACT_DOMAIN: &str = "trilith/input/v1";
/// The name of the fact that holds the order of a level's layers.
pub(super) const LAYER_ORDER: &str = "layer-order";
/// What the names of layers start with.
pub(super) const LAYER_PREFIX: &str = "layer/";

pub(super) fn list(inputs: &Inputs) -> Result<InputList, InputsError> {
    let Inputs {
        version,
        base,
        platforms,
        dockerfile,
        user,
        layers,
        lock_files,
        sources,
        config,
    } = inputs;
    let mut facts = Facts::default();
    facts.text(Level::Versioned, "version", version);
    match base {
        Base::Scratch => facts.text(Level::Versioned, "base", "scratch"),
        // The name is for people: two names of one digest are one base.
        Base::Image { name: _, digest } => facts.digest(Level::Versioned, "base", digest, 0),
    }
    for platform in platforms {
        let platform = platform.to_string();
        facts.text(Level::Versioned, format!("platform/{platform}"), &platform);
    }
    if let Some(dockerfile) = dockerfile {
        facts.dockerfile(dockerfile);
    }
    facts.0.extend(user.as_ref().map(self::user));
    for lock_file in lock_files {
        facts.lock_file(lock_file)?;
    }
    for source in sources {
        facts.source(source)?;
    }
    facts.layers(layers);
    facts.config(config);
    InputList::new(facts.0)
}

/// Returns the fact of a named user.
pub(super) fn user(user: &UserRecipe) -> Input {
    let UserRecipe {
        name,
        owner,
        home,
        shell,
    } = user;
    let fields = [
        ("name", name.as_str()),
        ("owner", &owner.to_string()),
        ("home", home.as_str()),
        ("shell", shell.as_str()),
    ];
    Input {
        level: Level::Versioned,
        name: "user".to_owned(),
        digest: framed(&fields),
        size: 0,
    }
}

/// Returns the digest of several fields.
fn framed(fields: &[(&str, &str)]) -> Digest {
    let mut hasher = FieldHasher::new(FACT_DOMAIN);
    for (field, value) in fields {
        hasher.field(field, value);
    }
    hasher.finish().to_digest()
}

#[derive(Default)]
struct Facts(Vec<Input>);

impl Facts {
    fn digest(&mut self, level: Level, name: impl Into<String>, digest: &Digest, size: u64) {
        self.0.push(Input {
            level,
            name: name.into(),
            digest: digest.clone(),
            size,
        });
    }

    fn text(&mut self, level: Level, name: impl Into<String>, value: &str) {
        self.digest(level, name, &Digest::of(value.as_bytes()), 0);
    }

    fn framed(&mut self, level: Level, name: impl Into<String>, fields: &[(&str, &str)]) {
        self.digest(level, name, &framed(fields), 0);
    }

    fn entries(&mut self, level: Level, prefix: &str, entries: &[EntryInput]) {
        self.0.extend(entries.iter().map(|entry| {
            let EntryInput { path, hash, size } = entry;
            Input {
                level,
                name: format!("{prefix}//{}", escape(path)),
                digest: hash.to_digest(),
                size: *size,
            }
        }));
    }

    fn dockerfile(&mut self, dockerfile: &DockerfileInput) {
        let DockerfileInput {
            text,
            extra_deps,
            images,
            context,
        } = dockerfile;
        match text {
            DockerfileText::Whole {
                content,
                args,
                target,
            } => self.whole_dockerfile(content, args, target.as_deref()),
            DockerfileText::Stages(facts) => self.0.extend(facts.iter().cloned()),
        }
        if let Some(extra_deps) = extra_deps {
            self.text(Level::Lock, "dockerfile/extra-deps", extra_deps);
        }
        for ImageInput {
            level,
            name,
            digest,
        } in images
        {
            self.digest(*level, name, digest, 0);
        }
        for ContextInput { level, entry } in context {
            self.entries(*level, "context", std::slice::from_ref(entry));
        }
    }

    fn whole_dockerfile(
        &mut self,
        content: &Digest,
        args: &BTreeMap<String, String>,
        target: Option<&str>,
    ) {
        let level = Level::Versioned;
        self.digest(level, "dockerfile", content, 0);
        for (name, value) in args {
            let name = format!("dockerfile/arg/{}", escape(name.as_bytes()));
            self.text(level, name, value);
        }
        if let Some(target) = target {
            self.text(level, "dockerfile/target", target);
        }
    }

    fn lock_file(&mut self, lock_file: &LockFile) -> Result<(), InputsError> {
        let LockFile {
            name,
            content,
            size,
        } = lock_file;
        let name = relative("lock file", name)?;
        self.digest(Level::Lock, format!("lock/{name}"), content, *size);
        Ok(())
    }

    fn source(&mut self, source: &SourceTree) -> Result<(), InputsError> {
        let SourceTree { name, entries } = source;
        let name = format!("source/{}", relative("source tree", name)?);
        self.entries(Level::Source, &name, entries);
        // An empty tree is something else than no tree.
        self.text(Level::Source, name, "tree");
        Ok(())
    }

    fn layers(&mut self, layers: &[LayerInput]) {
        let mut seen: HashMap<(Level, &Destination), usize> = HashMap::new();
        let mut order: HashMap<Level, Vec<String>> = HashMap::new();
        for layer in layers {
            let LayerInput { recipe, payload } = layer;
            let nth = seen.entry((recipe.level, &recipe.to)).or_default();
            *nth += 1;
            let id = layer_id(&recipe.to, *nth);
            self.layer(&id, recipe, payload);
            order.entry(recipe.level).or_default().push(id);
        }
        for (level, ids) in order {
            if ids.len() > 1 {
                let fields: Vec<(&str, &str)> =
                    ids.iter().map(|id| ("layer", id.as_str())).collect();
                self.framed(level, LAYER_ORDER, &fields);
            }
        }
    }

    fn layer(&mut self, id: &str, recipe: &LayerRecipe, payload: &Payload) {
        let LayerRecipe {
            level,
            copy,
            // The name of the image; its digest is in the payload.
            from: _,
            to,
            owner,
        } = recipe;
        let (kind, from, copy) = match payload {
            Payload::Tree(entries) => {
                self.entries(*level, &format!("file/{id}"), entries);
                // Where the project lies on this machine is no input.
                let copy = if copy.starts_with('/') { "" } else { copy };
                ("tree", "", copy)
            }
            Payload::Image(digest) => ("image", digest.as_str(), copy.as_str()),
        };
        let fields = [
            ("payload", kind),
            ("from", from),
            ("copy", copy),
            ("to", to.as_str()),
            ("owner", &owner.to_string()),
        ];
        self.framed(*level, format!("{LAYER_PREFIX}{id}"), &fields);
    }

    fn config(&mut self, config: &ConfigRecipe) {
        let level = Level::Source;
        let ConfigRecipe {
            entrypoint,
            cmd,
            env,
            labels,
            user,
            workdir,
            expose,
            stop_signal,
        } = config;
        for (name, words) in [("config/entrypoint", entrypoint), ("config/cmd", cmd)] {
            if let Some(words) = words {
                let fields: Vec<(&str, &str)> =
                    words.iter().map(|word| ("word", word.as_str())).collect();
                self.framed(level, name, &fields);
            }
        }
        for (kind, map) in [("env", env), ("label", labels)] {
            for (name, value) in map {
                self.text(
                    level,
                    format!("config/{kind}/{}", escape(name.as_bytes())),
                    value,
                );
            }
        }
        let workdir = workdir.as_ref().map(Destination::as_str);
        for (name, value) in [
            ("config/user", user.as_deref()),
            ("config/workdir", workdir),
            ("config/stop-signal", stop_signal.as_deref()),
        ] {
            if let Some(value) = value {
                self.text(level, name, value);
            }
        }
        let ports: BTreeSet<String> = expose.iter().map(|port| normal_port(port)).collect();
        for port in ports {
            self.text(
                level,
                format!("config/expose/{}", escape(port.as_bytes())),
                &port,
            );
        }
    }
}

/// Returns the name of the `nth` layer of a level with this destination.
fn layer_id(to: &Destination, nth: usize) -> String {
    let path = escape(to.relative().as_bytes()).replace('#', "\\x23");
    if nth == 1 {
        path
    } else {
        format!("{path}#{nth}")
    }
}

/// Returns the port with its protocol, `tcp` where none is named, as images write it.
fn normal_port(port: &str) -> String {
    if port.contains('/') {
        port.to_owned()
    } else {
        format!("{port}/tcp")
    }
}

/// Returns the escaped name of what lies in the project.
fn relative(what: &'static str, name: &str) -> Result<String, InputsError> {
    if name.split('/').any(str::is_empty) {
        return Err(InputsError::Name {
            what,
            name: name.to_owned(),
        });
    }
    Ok(escape(name.as_bytes()))
}
