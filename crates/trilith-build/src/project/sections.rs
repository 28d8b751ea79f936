//! The tables of `trilith.toml`, key by key: which exist, and what each may hold.
//!
//! A new key is added to its table's list here and to the struct it ends up in; a test
//! holds the two together.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeValue;
use trilith_core::{
    ConfigRecipe, Destination, LayerRecipe, Level, Owner, Platform, Reference, UserRecipe,
};

use super::file::{
    AgentSection, DockerfileRecipe, DockerfileSource, ImageSection, InputsSection, ProjectFile,
    Recipe,
};
use super::reader::{Mistakes, Refusal, Table, parsed, text};
use super::values;

const SECTIONS: [&str; 7] = [
    "agent",
    "config",
    "dockerfile",
    "image",
    "inputs",
    "layer",
    "user",
];
const AGENT: [&str; 1] = ["inject"];
const IMAGE: [&str; 5] = ["base", "platforms", "repository", "skip_tags", "version"];
const INPUTS: [&str; 4] = ["ignore", "lock", "scheme", "source"];
const LAYER: [&str; 5] = ["copy", "from", "level", "owner", "to"];
const CONFIG: [&str; 8] = [
    "cmd",
    "entrypoint",
    "env",
    "expose",
    "labels",
    "stop_signal",
    "user",
    "workdir",
];
const DOCKERFILE: [&str; 6] = ["args", "extra_deps", "levels", "path", "target", "template"];
const USER: [&str; 5] = ["gid", "home", "name", "shell", "uid"];

/// Every table with its keys, to tell where a misplaced key belongs.
const TABLES: [(&str, &[&str]); 7] = [
    ("[image]", &IMAGE),
    ("[inputs]", &INPUTS),
    ("[[layer]]", &LAYER),
    ("[config]", &CONFIG),
    ("[dockerfile]", &DOCKERFILE),
    ("[agent]", &AGENT),
    ("[user]", &USER),
];

/// How alike two keys must be, from 0 to 1, for one to be offered for the other.
const ALIKE: f64 = 0.8;

/// Reads a whole file. `None` only where `mistakes` has grown.
pub(super) fn project(root: &Table<'_>, mistakes: &mut Mistakes) -> Option<ProjectFile> {
    refuse_unknown(root, &SECTIONS, mistakes);
    let image = root.table("image", "image", mistakes);
    let inputs = root.table("inputs", "inputs", mistakes);
    let config = root.table("config", "config", mistakes);
    let agent = root.table("agent", "agent", mistakes);
    let user = root.table("user", "user", mistakes);
    Some(ProjectFile {
        image: image
            .map(|t| image_section(&t, mistakes))
            .unwrap_or_default(),
        inputs: inputs
            .map(|t| inputs_section(&t, mistakes))
            .unwrap_or_default(),
        config: config
            .map(|t| config_section(&t, mistakes))
            .unwrap_or_default(),
        agent: agent
            .map(|t| agent_section(&t, mistakes))
            .unwrap_or_default(),
        user: user.and_then(|t| user_section(&t, mistakes)),
        recipe: recipe(root, mistakes)?,
    })
}

fn image_section(table: &Table<'_>, mistakes: &mut Mistakes) -> ImageSection {
    refuse_unknown(table, &IMAGE, mistakes);
    ImageSection {
        repository: table.get("repository", mistakes, |v| parsed(v, str::parse)),
        version: table.get("version", mistakes, |v| {
            parsed(v, |text| values::parse_text(text, "a version"))
        }),
        base: table.get("base", mistakes, |v| {
            parsed(v, |text| values::parse_text(text, "a base image"))
        }),
        platforms: platforms(table, mistakes),
        skip_tags: table
            .list("skip_tags", mistakes, lower_level)
            .unwrap_or_default()
            .into_iter()
            .collect(),
    }
}

/// Reads `platforms`, dropping repetitions as one index holds a platform once.
fn platforms(table: &Table<'_>, mistakes: &mut Mistakes) -> Vec<Platform> {
    let all = table.list("platforms", mistakes, |v| parsed(v, str::parse));
    let mut once: Vec<Platform> = Vec::new();
    for platform in all.unwrap_or_default() {
        if !once.contains(&platform) {
            once.push(platform);
        }
    }
    once
}

fn inputs_section(table: &Table<'_>, mistakes: &mut Mistakes) -> InputsSection {
    refuse_unknown(table, &INPUTS, mistakes);
    InputsSection {
        scheme: table.get("scheme", mistakes, |v| parsed(v, str::parse)),
        lock: paths(table, "lock", mistakes),
        source: paths(table, "source", mistakes),
        ignore: table.list("ignore", mistakes, |v| parsed(v, values::parse_argument)),
    }
}

/// Reads paths in the project, none of which may stand twice as each is an input by its name.
fn paths(table: &Table<'_>, key: &'static str, mistakes: &mut Mistakes) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    table.list(key, mistakes, |value| {
        let path = parsed(value, values::parse_project_path)?;
        if seen.insert(path.clone()) {
            Ok(path)
        } else {
            Err(Refusal::Value(format!("`{path}` is there twice")))
        }
    })
}

/// Reads `[[layer]]` or `[dockerfile]`, of which a file has one.
fn recipe(root: &Table<'_>, mistakes: &mut Mistakes) -> Option<Recipe> {
    let tables = root.tables("layer", mistakes);
    let layers: Vec<Option<LayerRecipe>> = tables.iter().map(|t| layer(t, mistakes)).collect();
    let Some(table) = root.table("dockerfile", "dockerfile", mistakes) else {
        return layers
            .into_iter()
            .collect::<Option<_>>()
            .map(Recipe::Layers);
    };
    if !layers.is_empty() {
        mistakes.note(
            table.span(),
            "`[dockerfile]`",
            " stands beside `[[layer]]`; an image is made by one of them",
        );
    }
    dockerfile(&table, mistakes).map(Recipe::Dockerfile)
}

fn layer(table: &Table<'_>, mistakes: &mut Mistakes) -> Option<LayerRecipe> {
    refuse_unknown(table, &LAYER, mistakes);
    let from: Option<Reference> = table.get("from", mistakes, |v| parsed(v, str::parse));
    let copied = if table.find("from").is_some() {
        values::parse_image_path
    } else {
        values::parse_project_path
    };
    let level = table.require("level", mistakes, level);
    let copy = table.require("copy", mistakes, |v| parsed(v, copied));
    let to = table.require("to", mistakes, |v| parsed(v, str::parse::<Destination>));
    let owner = table.get("owner", mistakes, |v| parsed(v, str::parse::<Owner>));
    Some(LayerRecipe {
        level: level?,
        copy: copy?,
        from,
        to: to?,
        owner: owner.unwrap_or_default(),
    })
}

fn config_section(table: &Table<'_>, mistakes: &mut Mistakes) -> ConfigRecipe {
    refuse_unknown(table, &CONFIG, mistakes);
    let argument = |v| parsed(v, values::parse_argument);
    ConfigRecipe {
        entrypoint: table.list("entrypoint", mistakes, argument),
        cmd: table.list("cmd", mistakes, argument),
        env: variables(table, "env", mistakes, values::parse_env_name),
        labels: variables(table, "labels", mistakes, values::parse_label_name),
        user: table.get("user", mistakes, |v| parsed(v, values::parse_user)),
        workdir: table.get("workdir", mistakes, |v| {
            parsed(v, str::parse::<Destination>)
        }),
        expose: table.list("expose", mistakes, port).unwrap_or_default(),
        stop_signal: table.get("stop_signal", mistakes, signal),
    }
}

fn agent_section(table: &Table<'_>, mistakes: &mut Mistakes) -> AgentSection {
    refuse_unknown(table, &AGENT, mistakes);
    AgentSection {
        inject: table.get("inject", mistakes, |value| {
            value.as_bool().ok_or(Refusal::Type("`true` or `false`"))
        }),
    }
}

/// Reads `[user]`. A group has the number of its user where the file names none.
fn user_section(table: &Table<'_>, mistakes: &mut Mistakes) -> Option<UserRecipe> {
    refuse_unknown(table, &USER, mistakes);
    let path = |v| parsed(v, values::parse_user_path);
    let name = table.require("name", mistakes, |v| parsed(v, values::parse_user_name));
    let uid = table.require("uid", mistakes, |v| user_id(v, 1));
    let gid = table.get("gid", mistakes, |v| user_id(v, 0));
    let home = table.get("home", mistakes, path);
    let shell = table.get("shell", mistakes, path);
    let (name, uid) = (name?, uid?);
    Some(UserRecipe {
        owner: Owner {
            uid,
            gid: gid.unwrap_or(uid),
        },
        home: home.or_else(|| format!("/home/{name}").parse().ok())?,
        shell: shell.or_else(|| "/bin/sh".parse().ok())?,
        name,
    })
}

fn user_id(value: &DeValue<'_>, least: u32) -> Result<u32, Refusal> {
    let DeValue::Integer(integer) = value else {
        return Err(Refusal::Type("an integer"));
    };
    values::parse_user_id(&integer.to_string(), least).map_err(|error| Refusal::value(&error))
}

fn dockerfile(table: &Table<'_>, mistakes: &mut Mistakes) -> Option<DockerfileRecipe> {
    refuse_unknown(table, &DOCKERFILE, mistakes);
    let file = |v| parsed(v, values::parse_project_path);
    let path = table.get("path", mistakes, file);
    let template = table.get("template", mistakes, file);
    let named = (table.find("path"), table.find("template"));
    let after = match named {
        (Some(_), Some(_)) => Some(" has both `path` and `template`"),
        (None, None) => Some(" has neither `path` nor `template`"),
        _ => None,
    };
    if let Some(after) = after {
        mistakes.note(table.span(), "`[dockerfile]`", after);
    }
    let levels = levels(table, mistakes);
    let args = variables(table, "args", mistakes, values::parse_argument_name);
    let target = table.get("target", mistakes, |v| parsed(v, values::parse_stage));
    let extra_deps = table.get("extra_deps", mistakes, |v| {
        parsed(v, values::parse_argument)
    });
    Some(DockerfileRecipe {
        source: path
            .map(DockerfileSource::Path)
            .or(template.map(DockerfileSource::Template))?,
        levels,
        args,
        target,
        extra_deps,
    })
}

/// Reads `levels`, whose keys are names of levels.
fn levels(table: &Table<'_>, mistakes: &mut Mistakes) -> BTreeMap<Level, String> {
    let Some(stages) = table.table("levels", "dockerfile.levels", mistakes) else {
        return BTreeMap::new();
    };
    refuse_unknown(&stages, &Level::ALL.map(Level::as_str), mistakes);
    let stage = |level: Level| {
        let stage = stages.get(level.as_str(), mistakes, |v| parsed(v, values::parse_stage))?;
        Some((level, stage))
    };
    Level::ALL.into_iter().filter_map(stage).collect()
}

/// Reads a table of texts whose names `check` accepts.
fn variables(
    table: &Table<'_>,
    key: &'static str,
    mistakes: &mut Mistakes,
    check: impl Fn(&str) -> Result<String, values::ValueError>,
) -> BTreeMap<String, String> {
    table.map(key, mistakes, check, |v| parsed(v, values::parse_argument))
}

fn level(value: &DeValue<'_>) -> Result<Level, Refusal> {
    level_among(&Level::ALL, value)
}

/// Reads a level whose tag an image can do without.
fn lower_level(value: &DeValue<'_>) -> Result<Level, Refusal> {
    level_among(&[Level::Versioned, Level::Lock], value)
}

fn level_among(levels: &[Level], value: &DeValue<'_>) -> Result<Level, Refusal> {
    let text = text(value)?;
    let level = text.parse().ok();
    level.filter(|level| levels.contains(level)).ok_or_else(|| {
        let names: Vec<&str> = levels.iter().map(|level| level.as_str()).collect();
        let words = format!("`{text}` is none of {}", listed(&names));
        let near = nearest(text, &names).map(|near| format!(", did you mean `{near}`?"));
        Refusal::Value(words + &near.unwrap_or_default())
    })
}

fn port(value: &DeValue<'_>) -> Result<String, Refusal> {
    text_or_integer(value, "a port as an integer or string", values::parse_port)
}

fn signal(value: &DeValue<'_>) -> Result<String, Refusal> {
    text_or_integer(
        value,
        "a signal as a string or integer",
        values::parse_signal,
    )
}

fn text_or_integer(
    value: &DeValue<'_>,
    expected: &'static str,
    parse: impl Fn(&str) -> Result<String, values::ValueError>,
) -> Result<String, Refusal> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(integer) => integer.to_string(),
        _ => return Err(Refusal::Type(expected)),
    };
    parse(&text).map_err(|error| Refusal::value(&error))
}

/// Notes every key of `table` that is none of `known`, with the key that was likely meant.
fn refuse_unknown(table: &Table<'_>, known: &[&str], mistakes: &mut Mistakes) {
    for (key, _) in table.entries() {
        let name = key.get_ref().as_ref();
        if known.contains(&name) {
            continue;
        }
        mistakes.note(
            key.span(),
            format!("unknown key `{name}`"),
            advice(name, known),
        );
    }
}

/// Returns what was likely meant by the unknown key `name`: one that is spelt nearly so, else
/// one of another table, else one that looks alike; else all there are.
fn advice(name: &str, known: &[&str]) -> String {
    let misspelt = |key: &&&str| strsim::osa_distance(&name.to_lowercase(), key) <= 1;
    if let Some(key) = known.iter().find(misspelt) {
        return format!(", did you mean `{key}`?");
    }
    if let Some((table, _)) = TABLES.iter().find(|(_, keys)| keys.contains(&name)) {
        return format!(", it belongs under `{table}`");
    }
    match nearest(name, known) {
        Some(key) => format!(", did you mean `{key}`?"),
        None => format!("; known are {}", listed(known)),
    }
}

/// Returns the one of `known` that is most like `name`, if any is.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.to_lowercase();
    let score = |key: &&str| strsim::jaro_winkler(&name, key);
    known
        .iter()
        .map(|key| (score(key), *key))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, key)| key)
}

fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::parse_project;
    use super::*;

    /// No key takes a date, so each that is read complains by its name.
    #[test]
    fn every_known_key_is_read() {
        for (table, keys) in TABLES {
            for key in keys {
                let text = format!("{table}\n{key} = 1979-05-27");
                let error = parse_project(&text, Path::new("f"))
                    .unwrap_err()
                    .to_string();
                let name = format!("`{}.{key}` at `f`:2:", table.trim_matches(['[', ']']));
                assert!(error.contains(&name), "{error}");
                assert!(!error.contains("unknown key"), "{error}");
            }
        }
    }

    #[test]
    fn advice_for_unknown_keys() {
        for (name, known, expected) in [
            ("entrypont", &CONFIG[..], ", did you mean `entrypoint`?"),
            ("Entrypoint", &CONFIG, ", did you mean `entrypoint`?"),
            ("stop-signal", &CONFIG, ", did you mean `stop_signal`?"),
            ("stopSignal", &CONFIG, ", did you mean `stop_signal`?"),
            ("environment", &CONFIG, ", did you mean `env`?"),
            ("working_dir", &CONFIG, ", did you mean `workdir`?"),
            ("label", &CONFIG, ", did you mean `labels`?"),
            ("labels", &DOCKERFILE, ", it belongs under `[config]`"),
            ("level", &DOCKERFILE, ", did you mean `levels`?"),
            ("copy", &CONFIG, ", it belongs under `[[layer]]`"),
            ("layers", &SECTIONS, ", did you mean `layer`?"),
            ("base", &SECTIONS, ", it belongs under `[image]`"),
            (
                "",
                &LAYER,
                "; known are `copy`, `from`, `level`, `owner`, `to`",
            ),
            (
                "日本",
                &LAYER,
                "; known are `copy`, `from`, `level`, `owner`, `to`",
            ),
        ] {
            assert_eq!(advice(name, known), expected, "{name}");
        }
    }
}
