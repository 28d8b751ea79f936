//! A guess at the repository of an image, from where the project's code is hosted.
//!
//! Reads the one line of `.git/config` that names the remote `origin`, for a draft that a
//! person looks at; no hash, tag or image ever depends on it.

use trilith_core::Repository;

/// Hosts of code, and the registry each runs for its projects.
const REGISTRIES: [(&str, &str); 2] = [
    ("github.com", "ghcr.io"),
    ("gitlab.com", "registry.gitlab.com"),
];
/// The registry of a draft that cannot know better (RFC 2606: belongs to nobody).
const EXAMPLE_REGISTRY: &str = "registry.example.com";
/// The most characters of a project's name that go into a repository.
const MAX_NAME: usize = 100;
/// The last part of a name that has no usable character.
const FALLBACK_NAME: &str = "app";

/// Returns the repository that goes with the remote `origin` in the text of a `.git/config`.
pub(super) fn parse_origin(config: &str) -> Option<Repository> {
    let mut in_origin = false;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            in_origin = line == "[remote \"origin\"]";
        }
        match line.split_once('=') {
            Some((key, url)) if in_origin && key.trim() == "url" => {
                return repository_of(url.trim());
            }
            _ => {}
        }
    }
    None
}

/// Reads `https://host/owner/name.git`, `ssh://git@host/…` and `git@host:owner/name.git`.
fn repository_of(url: &str) -> Option<Repository> {
    let (host, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        None => url.split_once(':')?,
    };
    let host = host.rsplit('@').next()?;
    let (_, registry) = REGISTRIES.iter().find(|(code, _)| *code == host)?;
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path).to_lowercase();
    format!("{registry}/{path}").parse().ok()
}

/// Returns a repository of the project's name on a registry that does not exist.
pub(super) fn example(name: &str) -> String {
    let component = component(name);
    let name = if component.is_empty() {
        FALLBACK_NAME
    } else {
        &component
    };
    format!("{EXAMPLE_REGISTRY}/{name}")
}

/// Returns `name` in the characters of a repository's component: lower-case letters and
/// digits, with single dashes between them. Empty where it has none of these.
fn component(name: &str) -> String {
    let lower: String = name.to_lowercase().chars().take(MAX_NAME).collect();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    words.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (url, expected) in [
            (
                "https://github.com/Acme/Agent.git",
                Some("ghcr.io/acme/agent"),
            ),
            ("https://github.com/acme/agent/", Some("ghcr.io/acme/agent")),
            ("https://user:secret@github.com/a/b", Some("ghcr.io/a/b")),
            ("git@github.com:a/b.git", Some("ghcr.io/a/b")),
            (
                "ssh://git@gitlab.com/a/b/c.git",
                Some("registry.gitlab.com/a/b/c"),
            ),
            ("https://git.example.com/a/b", None),
            ("../elsewhere", None),
            ("github.com:", None),
            ("", None),
        ] {
            let config = format!("[core]\n\turl = no\n[remote \"origin\"]\n\turl = {url}\n");
            let found = parse_origin(&config).map(|repository| repository.to_string());
            assert_eq!(found.as_deref(), expected, "{url}");
        }
        assert_eq!(
            parse_origin("[remote \"fork\"]\nurl = git@github.com:a/b"),
            None
        );
    }

    #[test]
    fn names_become_components() {
        for (name, expected) in [
            ("My App", "registry.example.com/my-app"),
            ("a__b..c", "registry.example.com/a-b-c"),
            ("-é-", "registry.example.com/app"),
            ("", "registry.example.com/app"),
            (
                &"x".repeat(400),
                &format!("registry.example.com/{}", "x".repeat(100)),
            ),
        ] {
            assert_eq!(example(name), expected);
            assert_eq!(
                expected.parse::<Repository>().unwrap().to_string(),
                expected
            );
        }
    }
}
