//! Templates against what Python's Jinja2 answers, and hostile ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::*;

const GOLDEN: &str = include_str!("../../tests/golden/templates.json");

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    directory
}

fn variables() -> TemplateVariables {
    TemplateVariables {
        base_image: "debian:bookworm".to_owned(),
        build_from: BuildStart::Scratch,
        extra_deps: None,
        enable_browser: true,
        platform: "linux/amd64".parse().unwrap(),
        args: BTreeMap::new(),
    }
}

fn render(directory: &Path) -> Result<String, TemplateError> {
    load_template(&directory.join("Dockerfile.j2"))?.render(&variables())
}

/// Returns the message of an error with all its causes.
fn chain(error: &TemplateError) -> String {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    message
}

fn recorded(value: &Value) -> TemplateVariables {
    let text = |name: &str| value[name].as_str().unwrap().to_owned();
    let args = value["args"].as_object().unwrap();
    let start = BuildStart::ALL
        .into_iter()
        .find(|start| start.as_str() == text("build_from"));
    TemplateVariables {
        base_image: text("base_image"),
        build_from: start.unwrap(),
        extra_deps: Some(text("extra_deps")),
        enable_browser: value["enable_browser"].as_bool().unwrap(),
        platform: text("platform").parse().unwrap(),
        args: args
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect(),
    }
}

#[test]
fn rendered_as_jinja2_renders() {
    let cases: Vec<Value> = serde_json::from_str(GOLDEN).unwrap();
    let mut compared = 0;
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let files = case["files"].as_object().unwrap();
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str().unwrap().as_bytes()))
            .collect();
        let directory = directory(&files);
        let template = load_template(&directory.path().join("Dockerfile.j2")).unwrap();
        for render in case["renders"].as_array().unwrap() {
            let text = template.render(&recorded(&render["variables"]));
            if text.as_ref().ok().map(String::as_str) != render["text"].as_str() {
                wrong.push(format!(
                    "{name}:\n {text:?}\n {:?}",
                    render["text"].as_str()
                ));
                break;
            }
            compared += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 150, "{compared}");
}

#[test]
fn v0_variables_and_more() {
    let directory = directory(&[(
        "Dockerfile.j2",
        b"{{ build_from }} {{ build_from_scratch }} {{ build_from_versioned }} {{ build_from_lock }} {{ platform }}",
    )]);
    let template = load_template(&directory.path().join("Dockerfile.j2")).unwrap();
    for (start, expected) in [
        (BuildStart::Scratch, "scratch True False False linux/amd64"),
        (
            BuildStart::Versioned,
            "versioned False True False linux/amd64",
        ),
        (BuildStart::Lock, "lock False False True linux/amd64"),
    ] {
        let variables = TemplateVariables {
            build_from: start,
            ..variables()
        };
        assert_eq!(template.render(&variables).unwrap(), expected);
    }
}

#[test]
fn content_covers_every_start_and_variable() {
    let content = |text: &str, variables: &TemplateVariables| {
        let directory = directory(&[("Dockerfile.j2", text.as_bytes())]);
        let template = load_template(&directory.path().join("Dockerfile.j2")).unwrap();
        template.content(variables).unwrap()
    };
    let text = "FROM {{ base_image }}\n{% if build_from_lock %}RUN a{% endif %}{{ extra_deps }}";
    let before = content(text, &variables());
    assert_eq!(before, content(text, &variables()));
    assert_eq!(
        before,
        content(&text.replace("{{ e", "{# x #}{{ e"), &variables())
    );
    assert_ne!(
        before,
        content(&text.replace("RUN a", "RUN b"), &variables())
    );
    let extra = TemplateVariables {
        extra_deps: Some("RUN b".to_owned()),
        ..variables()
    };
    assert_ne!(before, content(text, &extra));
    let lock = TemplateVariables {
        build_from: BuildStart::Lock,
        ..variables()
    };
    assert_eq!(
        before,
        content(text, &lock),
        "the start itself does not count"
    );
}

#[test]
fn nothing_outside_the_directory_is_read() {
    let outside = directory(&[("secret", b"s3cret")]);
    let secret = outside.path().join("secret");
    for name in [
        "../secret",
        "a/../../secret",
        "link",
        secret.to_str().unwrap(),
    ] {
        let text = format!("{{% include '{name}' %}}");
        let inside = directory(&[("Dockerfile.j2", text.as_bytes()), ("a/b", b"")]);
        std::os::unix::fs::symlink(&secret, inside.path().join("link")).unwrap();
        let error = render(inside.path()).unwrap_err();
        assert!(!chain(&error).contains("s3cret"), "{name}");
    }
    let inside = directory(&[("Dockerfile.j2", b"{% include '../secret' %}")]);
    let error = render(inside.path()).unwrap_err();
    assert!(
        chain(&error).contains("template `../secret` is not below"),
        "{}",
        chain(&error)
    );
}

#[test]
fn hostile_templates() {
    let huge = "a".repeat(5 << 20);
    for (files, message) in [
        (&[("Dockerfile.j2", &b"\xff"[..])][..], "is not UTF-8"),
        (&[("Dockerfile.j2", huge.as_bytes())], "is larger than 4 MiB"),
        (&[("Dockerfile.j2/x", b"")], "is not a regular file"),
        (&[("other", b"")], "cannot read template"),
        (&[("Dockerfile.j2", b"{% include 'b' %}"), ("b", b"\xff")], "is not UTF-8"),
        (&[("Dockerfile.j2", b"a\nb\n{% if %}")], "Dockerfile.j2:3"),
        (&[("Dockerfile.j2", b"{% include 'Dockerfile.j2' %}")], "cannot render template"),
        (&[("Dockerfile.j2", b"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")], "cannot render"),
        (
            &[(
                "Dockerfile.j2",
                b"{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}",
            )],
            "does not come to an end",
        ),
        (&[("Dockerfile.j2", b"{{ 'x' * 100000000000 }}")], "does not come to an end"),
        (
            &[(
                "Dockerfile.j2",
                b"{% set ns = namespace(x='x' * 1000) %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            )],
            "does not come to an end",
        ),
    ] {
        let directory = directory(files);
        let error = render(directory.path()).unwrap_err();
        assert!(chain(&error).contains(message), "{}", chain(&error));
    }
}

#[test]
fn line_ends_and_paths() {
    let directory = directory(&[("Dockerfile.j2", b"FROM x\r\nRUN y\rRUN z\r\n\r\n")]);
    assert_eq!(render(directory.path()).unwrap(), "FROM x\nRUN y\nRUN z\n");
}
