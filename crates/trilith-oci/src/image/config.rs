//! Image configurations: what a container of the image runs, and on which layers.
//!
//! A typed view over the document, never a copy of it in types of our own: `Healthcheck`,
//! `OnBuild`, `Shell`, `os.version`, `ArgsEscaped` and whatever others invent stay where they are.
//! Assembles no image; see [`crate::graft()`].

mod check;
mod edit;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use trilith_core::{ConfigRecipe, Digest, Platform};

use super::json::{self, Object};
use crate::diff_id::DiffId;
use crate::error::Error;

/// The time that stands for none, in images made from scratch.
pub(crate) const EPOCH: &str = "1970-01-01T00:00:00Z";

/// The fields of a configuration in the specification's order, where new ones go.
const TOP_LEVEL: &[&str] = &[
    "created",
    "author",
    "architecture",
    "os",
    "os.version",
    "os.features",
    "variant",
    "config",
    "rootfs",
    "history",
];
/// An image configuration (OCI image specification 1.1, `config.md`; Docker's is the same).
///
/// Keeps every field it was parsed with, in its order. Unchanged it gives back the very bytes it
/// was parsed from; once changed it is compact JSON that depends on its content alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    bytes: Bytes,
    document: Object,
    diff_ids: Vec<DiffId>,
}

/// One step of how an image came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, as RFC 3339.
    pub created: Option<String>,
    /// By which command.
    pub created_by: Option<String>,
    /// A remark.
    pub comment: Option<String>,
    /// Whether the step made no layer.
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Returns the configuration of an image with no layers for `platform`.
    #[must_use]
    pub fn new(platform: &Platform) -> Self {
        let mut document = Object::new();
        let mut set = |name: &str, value: Value| document.insert(name.to_owned(), value);
        set("created", EPOCH.into());
        set("architecture", platform.architecture().into());
        set("os", platform.os().into());
        if let Some(variant) = platform.variant() {
            set("variant", variant.into());
        }
        set("config", Object::new().into());
        set(
            "rootfs",
            serde_json::json!({"type": "layers", "diff_ids": []}),
        );
        set("history", Vec::<Value>::new().into());
        Self {
            bytes: json::print(&document).into(),
            document,
            diff_ids: Vec::new(),
        }
    }

    /// Returns the configuration that `bytes` hold.
    ///
    /// # Errors
    /// [`Error::Malformed`] where a field the specification names has another type, is missing
    /// or stands twice, or the history has entries for more layers than there are.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, Error> {
        let bytes = bytes.into();
        let parsed = json::parse(&bytes).and_then(|document| {
            let diff_ids = check::check(&document)?;
            Ok((document, diff_ids))
        });
        match parsed {
            Ok((document, diff_ids)) => Ok(Self {
                bytes,
                document,
                diff_ids,
            }),
            Err(reason) => Err(Error::Malformed {
                object: format!("config `{}`", Digest::of(&bytes)),
                reason,
            }),
        }
    }

    /// Returns the document's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Returns the digest of [`Self::to_bytes`], which is the image ID.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Returns the platform in normal form.
    #[must_use]
    pub fn platform(&self) -> Platform {
        let text = |name| json::string(&self.document, name).ok().flatten();
        Platform::new(
            text("os").unwrap_or_default(),
            text("architecture").unwrap_or_default(),
            text("variant"),
        )
    }

    /// Returns the version of the operating system, which Windows images have.
    #[must_use]
    pub fn os_version(&self) -> Option<&str> {
        self.text("os.version")
    }

    /// Returns when the image was made, as RFC 3339.
    #[must_use]
    pub fn created(&self) -> Option<&str> {
        self.text("created")
    }

    /// Returns the environment, each as `NAME=value`.
    #[must_use]
    pub fn env(&self) -> Vec<&str> {
        self.execution_strings("Env")
    }

    /// Returns the entrypoint, empty where there is none.
    #[must_use]
    pub fn entrypoint(&self) -> Vec<&str> {
        self.execution_strings("Entrypoint")
    }

    /// Returns the command, empty where there is none.
    #[must_use]
    pub fn cmd(&self) -> Vec<&str> {
        self.execution_strings("Cmd")
    }

    /// Returns the user, `None` where it is root by default.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.execution_text("User")
    }

    /// Returns the working directory, `None` where it is `/` by default.
    #[must_use]
    pub fn workdir(&self) -> Option<&str> {
        self.execution_text("WorkingDir")
    }

    /// Returns the signal that asks the container to stop.
    #[must_use]
    pub fn stop_signal(&self) -> Option<&str> {
        self.execution_text("StopSignal")
    }

    /// Returns the labels by name.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<&str, &str> {
        let fields = self.execution().and_then(|c| c.get("Labels")?.as_object());
        let pairs = fields.into_iter().flatten();
        pairs
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
            .collect()
    }

    /// Returns the ports the container listens on, as in `8000/tcp`, in their order.
    #[must_use]
    pub fn exposed_ports(&self) -> Vec<&str> {
        let ports = self
            .execution()
            .and_then(|c| c.get("ExposedPorts")?.as_object());
        ports
            .into_iter()
            .flat_map(Object::keys)
            .map(String::as_str)
            .collect()
    }

    /// Returns the digests of the uncompressed layers, lowest first.
    #[must_use]
    pub fn diff_ids(&self) -> &[DiffId] {
        &self.diff_ids
    }

    /// Returns how the image came to be, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<History> {
        let entries = self.document.get("history").and_then(Value::as_array);
        let entries = entries.into_iter().flatten();
        entries.filter_map(|entry| json::read(entry).ok()).collect()
    }

    /// Returns the configuration with `recipe` on top. Doing so twice is doing so once.
    ///
    /// An entrypoint without a command drops the present command, as a Dockerfile's does. An
    /// empty entrypoint or command removes it. Variables and labels are set by name; those that
    /// are there keep their place.
    #[must_use]
    pub fn apply(&self, recipe: &ConfigRecipe) -> Self {
        // Taken apart without `..`, so that a new field cannot be forgotten here.
        let ConfigRecipe {
            entrypoint,
            cmd,
            env,
            labels,
            user,
            workdir,
            expose,
            stop_signal,
        } = recipe;
        let workdir = workdir.as_ref().map(trilith_core::Destination::as_str);
        self.with_execution(|execution| {
            if let Some(entrypoint) = entrypoint {
                edit::set_list(execution, "Entrypoint", entrypoint);
                edit::set_list(execution, "Cmd", cmd.as_deref().unwrap_or_default());
            } else if let Some(cmd) = cmd {
                edit::set_list(execution, "Cmd", cmd);
            }
            edit::set_env(execution, env);
            edit::set_labels(execution, labels);
            for (name, value) in [
                ("User", user.as_deref()),
                ("WorkingDir", workdir),
                ("StopSignal", stop_signal.as_deref()),
            ] {
                if let Some(value) = value {
                    json::set(
                        execution,
                        name,
                        value.into(),
                        json::by_schema(edit::EXECUTION),
                    );
                }
            }
            edit::add_ports(execution, expose);
        })
    }

    /// Returns the configuration with `labels` set, each by name.
    #[must_use]
    pub fn with_labels(&self, labels: &BTreeMap<String, String>) -> Self {
        self.with_execution(|execution| edit::set_labels(execution, labels))
    }

    /// Returns the field `name` of the document, for those that no specification knows.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        json::field(&self.document, name)
    }

    /// Returns the configuration with the field `name` set, in its place or as the last, or without
    /// it.
    pub(crate) fn with_field(&self, name: &str, value: Option<Value>) -> Self {
        let mut document = self.document.clone();
        match value {
            Some(value) => json::set(&mut document, name, value, json::by_schema(TOP_LEVEL)),
            None => drop(document.shift_remove(name)),
        }
        self.with(document)
    }

    /// Returns the configuration with a date and with one entry of history for each layer.
    ///
    /// Layers the history says nothing of are taken for the lowest, as when only they came from a
    /// tool that writes no history; entries that say so go in front.
    pub(crate) fn with_complete_history(&self) -> Self {
        let mut document = self.document.clone();
        let created: Value = self.created().unwrap_or(EPOCH).into();
        json::set(
            &mut document,
            "created",
            created.clone(),
            json::by_schema(TOP_LEVEL),
        );
        let known = self.history().iter().filter(|h| !h.empty_layer).count();
        let missing = self.diff_ids.len().saturating_sub(known);
        let entry = serde_json::json!({
            "created": created,
            "comment": "layer of the base image, which has no history of it",
        });
        let mut history = vec![entry; missing];
        if let Some(present) = document.get_mut("history").and_then(Value::as_array_mut) {
            history.append(present);
        }
        json::set(
            &mut document,
            "history",
            history.into(),
            json::by_schema(TOP_LEVEL),
        );
        self.with(document)
    }

    /// Returns the configuration with one more layer on top, and how it came to be.
    pub(crate) fn with_layer(
        &self,
        diff_id: &DiffId,
        created_by: &str,
        comment: Option<&str>,
    ) -> Self {
        let mut document = self.document.clone();
        let mut entry = serde_json::json!({
            "created": self.created().unwrap_or(EPOCH),
            "created_by": created_by,
        });
        if let Some(comment) = comment {
            entry["comment"] = comment.into();
        }
        json::push(&mut document, "history", json::by_schema(TOP_LEVEL), entry);
        json::edit(
            &mut document,
            "rootfs",
            json::by_schema(TOP_LEVEL),
            |rootfs| {
                json::push(
                    rootfs,
                    "diff_ids",
                    json::by_schema(&[]),
                    diff_id.to_string().into(),
                );
            },
        );
        let mut config = self.with(document);
        config.diff_ids.push(diff_id.clone());
        config
    }

    fn with_execution(&self, change: impl FnOnce(&mut Object)) -> Self {
        let mut document = self.document.clone();
        json::edit(&mut document, "config", json::by_schema(TOP_LEVEL), change);
        self.with(document)
    }

    /// Returns this configuration with `document`, which has the same layers, in its place.
    fn with(&self, document: Object) -> Self {
        Self {
            bytes: json::print(&document).into(),
            document,
            diff_ids: self.diff_ids.clone(),
        }
    }

    fn execution(&self) -> Option<&Object> {
        json::object(&self.document, "config").ok().flatten()
    }

    fn text(&self, name: &str) -> Option<&str> {
        json::string(&self.document, name).ok().flatten()
    }

    fn execution_text(&self, name: &str) -> Option<&str> {
        let text = json::string(self.execution()?, name).ok().flatten();
        text.filter(|text| !text.is_empty())
    }

    fn execution_strings(&self, name: &str) -> Vec<&str> {
        self.execution()
            .map(|execution| json::strings(execution, name))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// What a Docker image has that no specification knows, in an order of its own.
    fn foreign() -> String {
        format!(
            r#"{{
  "os": "windows", "architecture": "amd64", "os.version": "10.0.17763.1",
  "config": {{
    "Cmd": ["sh"], "Env": ["PATH=/bin", "A=1", "A=2"], "Labels": {{"z": "1", "a": "2"}},
    "Healthcheck": {{"Test": ["CMD", "true"], "Interval": 30000000000}},
    "OnBuild": ["RUN x"], "Shell": ["/bin/bash", "-c"], "StopTimeout": 10,
    "ArgsEscaped": true, "Image": "", "Volumes": null
  }},
  "x-odd": [1.50, "\u00e9", {{"n": null}}],
  "rootfs": {{"diff_ids": ["{ID}"], "type": "layers"}},
  "docker_version": "20.10"
}}"#
        )
    }

    fn minimal(config: serde_json::Value) -> ImageConfig {
        let mut document = json!({
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        document["config"] = config;
        ImageConfig::parse(document.to_string()).unwrap()
    }

    #[test]
    fn unchanged_it_gives_back_the_same_bytes() {
        let text = foreign();
        let config = ImageConfig::parse(text.clone()).unwrap();
        assert_eq!(config.to_bytes(), text.as_bytes());
        assert_eq!(config.digest(), Digest::of(text.as_bytes()));
        assert_eq!(config.platform().to_string(), "windows/amd64");
        assert_eq!(config.os_version(), Some("10.0.17763.1"));
        assert_eq!(
            (config.created(), config.user(), config.workdir()),
            (None, None, None)
        );
        assert_eq!(config.env(), ["PATH=/bin", "A=1", "A=2"]);
        assert_eq!(config.labels()["z"], "1");
        assert_eq!(config.diff_ids(), [ID.parse().unwrap()]);
    }

    #[test]
    fn a_change_keeps_all_else_in_its_place() {
        let recipe = ConfigRecipe {
            entrypoint: Some(vec!["/run".to_owned()]),
            env: [
                ("A".to_owned(), "3".to_owned()),
                ("B".to_owned(), "4".to_owned()),
            ]
            .into(),
            labels: [("m".to_owned(), "3".to_owned())].into(),
            user: Some("1:2".to_owned()),
            workdir: Some("/w/".parse().unwrap()),
            expose: vec!["80".to_owned(), "53/udp".to_owned()],
            stop_signal: Some("SIGINT".to_owned()),
            cmd: None,
        };
        let config = ImageConfig::parse(foreign()).unwrap().apply(&recipe);
        let expected = format!(
            concat!(
                r#"{{"os":"windows","architecture":"amd64","os.version":"10.0.17763.1","config":{{"#,
                r#""User":"1:2","ExposedPorts":{{"53/udp":{{}},"80/tcp":{{}}}},"#,
                r#""Entrypoint":["/run"],"Env":["PATH=/bin","A=3","B=4"],"WorkingDir":"/w","#,
                r#""Labels":{{"m":"3","z":"1","a":"2"}},"#,
                r#""Healthcheck":{{"Test":["CMD","true"],"Interval":30000000000}},"#,
                r#""OnBuild":["RUN x"],"Shell":["/bin/bash","-c"],"StopTimeout":10,"#,
                r#""ArgsEscaped":true,"Image":"","Volumes":null,"StopSignal":"SIGINT"}},"#,
                r#""x-odd":[1.5,"é",{{"n":null}}],"#,
                r#""rootfs":{{"diff_ids":["{}"],"type":"layers"}},"docker_version":"20.10"}}"#,
            ),
            ID
        );
        assert_eq!(String::from_utf8_lossy(&config.to_bytes()), expected);
        assert_eq!(config.apply(&recipe), config);
        assert_eq!(ImageConfig::parse(config.to_bytes()).unwrap(), config);
    }

    #[test]
    fn entrypoint_and_command_are_docker_s() {
        let list = |words: &[&str]| Some(words.iter().map(|w| (*w).to_owned()).collect());
        let base = json!({"Entrypoint": ["e"], "Cmd": ["c"]});
        for (entrypoint, cmd, expected) in [
            (None, None, (vec!["e"], vec!["c"])),
            (list(&["x"]), None, (vec!["x"], vec![])),
            (None, list(&["y"]), (vec!["e"], vec!["y"])),
            (list(&["x"]), list(&["y"]), (vec!["x"], vec!["y"])),
            (list(&[]), None, (vec![], vec![])),
            (None, list(&[]), (vec!["e"], vec![])),
        ] {
            let recipe = ConfigRecipe {
                entrypoint,
                cmd,
                ..ConfigRecipe::default()
            };
            let once = minimal(base.clone()).apply(&recipe);
            assert_eq!((once.entrypoint(), once.cmd()), expected);
            assert_eq!(once.apply(&recipe), once);
        }
    }

    #[test]
    fn fields_that_are_null_are_absent() {
        let config = minimal(json!({"Env": null, "Labels": null, "ExposedPorts": null}));
        let recipe = ConfigRecipe {
            env: [("A".to_owned(), String::new())].into(),
            labels: [("l".to_owned(), String::new())].into(),
            expose: vec!["1".to_owned()],
            ..ConfigRecipe::default()
        };
        let changed = config.apply(&recipe);
        assert_eq!(
            (changed.env(), changed.exposed_ports()),
            (vec!["A="], vec!["1/tcp"])
        );
        assert_eq!(minimal(json!(null)).apply(&recipe).labels()["l"], "");
    }

    #[test]
    fn hostile_documents() {
        let rootfs = r#""rootfs":{"type":"layers","diff_ids":[]}"#;
        let platform = r#""os":"linux","architecture":"amd64""#;
        for (text, reason) in [
            ("[]".to_owned(), "not a JSON object"),
            (format!("{{{platform}}}"), "`rootfs` is missing"),
            (
                format!(r#"{{"os":"linux",{rootfs}}}"#),
                "`architecture` is missing",
            ),
            (
                format!(r#"{{"os":"","architecture":"a",{rootfs}}}"#),
                "`os` is empty",
            ),
            (
                format!(r#"{{{platform},{rootfs},"created":1}}"#),
                "`created` must be a string",
            ),
            (
                format!(r#"{{{platform},{rootfs},"Rootfs":{{}}}}"#),
                "two spellings",
            ),
            (
                format!("{{{platform},{rootfs},{rootfs}}}"),
                "field `rootfs` stands twice",
            ),
            (
                format!(r#"{{{platform},"rootfs":{{"type":"layers"}}}}"#),
                "`diff_ids` is missing",
            ),
            (
                format!(r#"{{{platform},"rootfs":{{"type":"squashfs","diff_ids":[]}}}}"#),
                "`type` is `squashfs`",
            ),
            (
                format!(r#"{{{platform},"rootfs":{{"diff_ids":["sha256:00"]}}}}"#),
                "64 lower-case hex digits",
            ),
            (
                format!(r#"{{{platform},{rootfs},"config":{{"Env":"A=1"}}}}"#),
                "in `config`: `Env` must be an array of strings",
            ),
            (
                format!(r#"{{{platform},{rootfs},"config":{{"Labels":{{"a":1}}}}}}"#),
                "`Labels` must be an object of strings",
            ),
            (
                format!(r#"{{{platform},{rootfs},"history":[{{"empty_layer":"no"}}]}}"#),
                "in `history`: entry 0",
            ),
            (
                format!(r#"{{{platform},{rootfs},"history":[{{"empty_layer":true}},{{}}]}}"#),
                "1 entries with a layer, but 0 diff_ids",
            ),
        ] {
            let error = ImageConfig::parse(text.clone()).unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }), "{text}");
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn scratch_is_valid_and_fixed() {
        let config = ImageConfig::new(&"linux/arm/v6".parse().unwrap());
        assert_eq!(ImageConfig::parse(config.to_bytes()).unwrap(), config);
        assert_eq!(
            config.to_bytes(),
            concat!(
                r#"{"created":"1970-01-01T00:00:00Z","architecture":"arm","os":"linux","variant":"v6","#,
                r#""config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#
            )
        );
    }
}
