//! Changes to the object `config`, each of which made twice is made once.

use std::collections::BTreeMap;

use crate::image::json::{self, Object};

/// The fields of the object in the specification's order, where new ones go.
pub(super) const EXECUTION: &[&str] = &[
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
];

/// Replaces a list; an empty one goes.
pub(super) fn set_list(execution: &mut Object, name: &str, list: &[String]) {
    if list.is_empty() {
        execution.shift_remove(name);
    } else {
        json::set(execution, name, list.into(), json::by_schema(EXECUTION));
    }
}

/// Sets variables by name: the first of that name is replaced, further ones go.
pub(super) fn set_env(execution: &mut Object, env: &BTreeMap<String, String>) {
    if env.is_empty() {
        return;
    }
    let mut variables: Vec<String> = json::strings(execution, "Env")
        .into_iter()
        .map(str::to_owned)
        .collect();
    for (name, value) in env {
        let prefix = format!("{name}=");
        let is_it = |variable: &String| variable.starts_with(&prefix) || variable == name;
        let place = variables.iter().position(is_it).unwrap_or(variables.len());
        variables.retain(|variable| !is_it(variable));
        variables.insert(place, format!("{prefix}{value}"));
    }
    json::set(
        execution,
        "Env",
        variables.into(),
        json::by_schema(EXECUTION),
    );
}

/// Sets labels by name.
pub(super) fn set_labels(execution: &mut Object, labels: &BTreeMap<String, String>) {
    if labels.is_empty() {
        return;
    }
    json::edit(execution, "Labels", json::by_schema(EXECUTION), |present| {
        for (name, value) in labels {
            json::set(present, name, value.as_str().into(), str::cmp);
        }
    });
}

/// Adds ports, TCP where they do not say.
pub(super) fn add_ports(execution: &mut Object, ports: &[String]) {
    if ports.is_empty() {
        return;
    }
    json::edit(
        execution,
        "ExposedPorts",
        json::by_schema(EXECUTION),
        |present| {
            for port in ports {
                let suffix = if port.contains('/') { "" } else { "/tcp" };
                let port = format!("{port}{suffix}");
                if !present.contains_key(&port) {
                    json::set(present, &port, Object::new().into(), str::cmp);
                }
            }
        },
    );
}
