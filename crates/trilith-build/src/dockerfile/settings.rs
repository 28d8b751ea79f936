//! `[config]` as instructions at the end of the stage that is built.
//!
//! An engine applies them as it does the Dockerfile's own, so the image is the same wherever it
//! goes afterwards.

use std::fmt::Write as _;

use trilith_core::ConfigRecipe;

use super::file::Dockerfile;

/// The name of the stage that holds the instructions, where the stage that is built is not the last.
const STAGE: &str = "trilith-config";

/// A value that no instruction can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` holds a line break, which no instruction can")]
pub struct SettingsError {
    /// What holds it, as in `env.MOTD`.
    pub name: String,
}

/// Returns the text of `dockerfile` that builds `target`, the last stage if there is none, with
/// `config` applied to it, and the target of that text.
///
/// # Errors
/// [`SettingsError`] for a value that no instruction can hold.
pub fn with_settings(
    dockerfile: &Dockerfile,
    target: Option<&str>,
    config: &ConfigRecipe,
) -> Result<(String, Option<String>), SettingsError> {
    let mut text = dockerfile.text().to_owned();
    let mut target = target.map(str::to_owned);
    let instructions = instructions(config, dockerfile.directives.escape)?;
    if instructions.is_empty() {
        return Ok((text, target));
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let last = dockerfile.stages().last();
    let built = target.as_deref().and_then(|name| dockerfile.stage(name));
    if let Some(built) = built.filter(|built| Some(*built) != last) {
        let _infallible = writeln!(text, "FROM {} AS {STAGE}", built.id());
        target = Some(STAGE.to_owned());
    }
    text.push_str(&instructions);
    Ok((text, target))
}

fn instructions(config: &ConfigRecipe, escape: char) -> Result<String, SettingsError> {
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
    } = config;
    let mut lines: Vec<String> = Vec::new();
    for (name, value) in env {
        let value = quoted(&format!("env.{name}"), value, escape)?;
        lines.push(format!("ENV {name}={value}"));
    }
    for (name, value) in labels {
        let quoted_name = quoted("labels", name, escape)?;
        let value = quoted(&format!("labels.{name}"), value, escape)?;
        lines.push(format!("LABEL {quoted_name}={value}"));
    }
    for (instruction, value) in [
        (
            "WORKDIR",
            workdir.as_ref().map(trilith_core::Destination::as_str),
        ),
        ("USER", user.as_deref()),
        ("STOPSIGNAL", stop_signal.as_deref()),
    ] {
        if let Some(value) = value {
            let value = escaped(&instruction.to_lowercase(), value, escape)?;
            lines.push(format!("{instruction} {value}"));
        }
    }
    for port in expose {
        lines.push(format!("EXPOSE {}", escaped("expose", port, escape)?));
    }
    if let Some(entrypoint) = entrypoint {
        lines.push(format!("ENTRYPOINT {}", json(entrypoint)));
        // The command of the base was meant for another entry point.
        lines.push(format!("CMD {}", json(cmd.as_deref().unwrap_or_default())));
    } else if let Some(cmd) = cmd {
        lines.push(format!("CMD {}", json(cmd)));
    }
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

fn json(words: &[String]) -> String {
    serde_json::Value::from(words.to_vec()).to_string()
}

fn quoted(name: &str, value: &str, escape: char) -> Result<String, SettingsError> {
    Ok(format!("\"{}\"", escaped(name, value, escape)?))
}

/// Returns `value` so that no variable in it is replaced.
fn escaped(name: &str, value: &str, escape: char) -> Result<String, SettingsError> {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '\n' | '\r') {
            let name = name.to_owned();
            return Err(SettingsError { name });
        }
        if character == escape || matches!(character, '"' | '$') {
            escaped.push(escape);
        }
        escaped.push(character);
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ConfigRecipe {
        ConfigRecipe {
            entrypoint: Some(vec!["/run".to_owned(), "a \"b\"\n".to_owned()]),
            env: [("A".to_owned(), "$x \"y\" \\z".to_owned())].into(),
            labels: [("org.example".to_owned(), "v".to_owned())].into(),
            user: Some("1:1".to_owned()),
            workdir: Some("/work $dir".parse().unwrap()),
            expose: vec!["8000".to_owned()],
            ..ConfigRecipe::default()
        }
    }

    #[test]
    fn instructions_at_the_end_of_the_target() {
        let expected = concat!(
            "ENV A=\"\\$x \\\"y\\\" \\\\z\"\n",
            "LABEL \"org.example\"=\"v\"\n",
            "WORKDIR /work \\$dir\nUSER 1:1\nEXPOSE 8000\n",
            "ENTRYPOINT [\"/run\",\"a \\\"b\\\"\\n\"]\nCMD []\n"
        );
        for (text, target, before, new_target) in [
            ("FROM a", None, "FROM a\n", None),
            ("FROM a AS b\n", Some("b"), "FROM a AS b\n", Some("b")),
            (
                "FROM a AS b\nFROM b\n",
                Some("b"),
                "FROM a AS b\nFROM b\nFROM b AS trilith-config\n",
                Some(STAGE),
            ),
        ] {
            let dockerfile = Dockerfile::parse(text).unwrap();
            let (text, target) = with_settings(&dockerfile, target, &config()).unwrap();
            assert_eq!(text, format!("{before}{expected}"));
            assert_eq!(target.as_deref(), new_target);
            Dockerfile::parse(&text).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let dockerfile = Dockerfile::parse("FROM a").unwrap();
        let plain = with_settings(&dockerfile, None, &ConfigRecipe::default()).unwrap();
        assert_eq!(plain.0, "FROM a");
        let config = ConfigRecipe {
            env: [("A".to_owned(), "a\nUSER 0".to_owned())].into(),
            ..ConfigRecipe::default()
        };
        let error = with_settings(&dockerfile, None, &config).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`env.A` holds a line break, which no instruction can"
        );
    }
}
