//! What makes a document an image configuration. Looks only at fields the specification names.

use serde_json::Value;

use super::History;
use crate::diff_id::DiffId;
use crate::image::json::{self, Object};

/// Checks the types of all fields the specification names, and returns the diff IDs.
pub(super) fn check(document: &Object) -> Result<Vec<DiffId>, String> {
    json::check_folded(document)?;
    for name in ["created", "author", "variant", "os.version"] {
        json::string(document, name)?;
    }
    json::check_strings(document, "os.features")?;
    for name in ["architecture", "os"] {
        let text = json::string(document, name)?.ok_or_else(|| format!("`{name}` is missing"))?;
        if text.is_empty() {
            return Err(format!("`{name}` is empty"));
        }
    }
    if let Some(execution) = json::object(document, "config")? {
        check_execution(execution).map_err(|reason| format!("in `config`: {reason}"))?;
    }
    let rootfs = json::object(document, "rootfs")?.ok_or("`rootfs` is missing")?;
    let diff_ids = check_rootfs(rootfs).map_err(|reason| format!("in `rootfs`: {reason}"))?;
    let history = json::array(document, "history")?.unwrap_or_default();
    check_history(history, diff_ids.len()).map_err(|reason| format!("in `history`: {reason}"))?;
    Ok(diff_ids)
}

fn check_execution(execution: &Object) -> Result<(), String> {
    json::check_folded(execution)?;
    for name in ["User", "WorkingDir", "StopSignal"] {
        json::string(execution, name)?;
    }
    for name in ["Env", "Entrypoint", "Cmd"] {
        json::check_strings(execution, name)?;
    }
    for name in ["ExposedPorts", "Volumes"] {
        json::object(execution, name)?;
    }
    json::check_string_map(execution, "Labels")
}

fn check_rootfs(rootfs: &Object) -> Result<Vec<DiffId>, String> {
    json::check_folded(rootfs)?;
    if let Some(kind) = json::string(rootfs, "type")?.filter(|kind| *kind != "layers") {
        return Err(format!("`type` is `{kind}`, not `layers`"));
    }
    json::check_strings(rootfs, "diff_ids")?;
    json::array(rootfs, "diff_ids")?.ok_or("`diff_ids` is missing")?;
    json::strings(rootfs, "diff_ids")
        .into_iter()
        .map(|text| text.parse::<DiffId>().map_err(|error| error.to_string()))
        .collect()
}

fn check_history(history: &[Value], layers: usize) -> Result<(), String> {
    let mut with_layer = 0;
    for (position, entry) in history.iter().enumerate() {
        let entry: History =
            json::read(entry).map_err(|reason| format!("entry {position}: {reason}"))?;
        with_layer += usize::from(!entry.empty_layer);
    }
    // Fewer are common: some builders write none, and the next builder only its own.
    if with_layer > layers {
        return Err(format!(
            "{with_layer} entries with a layer, but {layers} diff_ids"
        ));
    }
    Ok(())
}
