//! Credentials from Docker's `config.json` and Podman's `auth.json`.
//!
//! Reads files and asks helpers; writes neither, and looks at no environment (a helper is
//! found by the system's own rules). `docker_credential` was not used: it knows no keys
//! with a namespace, finds its files through the environment and drops why reading failed.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};

use super::endpoint::Endpoint;
use super::failure::{Account, Cause, Failure};
use super::helper::{self, Answer};
use super::secret::Secret;

/// Where credentials come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CredentialSource {
    /// Nowhere: every request is anonymous.
    #[default]
    Anonymous,
    /// Docker's and Podman's files, the first that knows the registry wins. Those that do
    /// not exist are passed over. [`super::CredentialPlaces::files`] lists the usual ones.
    Files(Vec<PathBuf>),
}

/// What proves who we are to a registry or its token server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A user name and password (or an access token in its place).
    Password {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth 2 refresh token, which the token server exchanges.
    Identity(Secret),
    /// A bearer token to be sent as it is.
    Bearer(Secret),
}

/// A credential, if one was found, and where it is from or was looked for.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub(crate) credential: Option<Credential>,
    pub(crate) account: Account,
}

/// The credential files of a process, each read at most once.
#[derive(Debug)]
pub(crate) struct Credentials {
    source: CredentialSource,
    files: OnceCell<Vec<(PathBuf, AuthFile)>>,
    helpers: Helpers,
}

/// What helpers answered, by helper and server. Locked while one is asked: it may take
/// seconds, or ask for a passphrase, and many requests need its answer at once.
#[derive(Debug, Default)]
struct Helpers(Mutex<HashMap<(String, String), Answer>>);

impl Helpers {
    async fn get(&self, helper: &str, server: &str) -> Result<Answer, Failure> {
        let mut answers = self.0.lock().await;
        let key = (helper.to_owned(), server.to_owned());
        if let Some(answer) = answers.get(&key) {
            return Ok(answer.clone());
        }
        let answer = helper::get(helper, server).await?;
        answers.insert(key, answer.clone());
        Ok(answer)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: Option<BTreeMap<String, AuthEntry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl Credentials {
    pub(crate) fn new(source: CredentialSource) -> Self {
        Self {
            source,
            files: OnceCell::new(),
            helpers: Helpers::default(),
        }
    }

    /// Returns the credential for `repository` (a path) on the registry at `endpoint`.
    pub(crate) async fn lookup(
        &self,
        endpoint: &Endpoint,
        repository: &str,
    ) -> Result<Lookup, Failure> {
        let CredentialSource::Files(paths) = &self.source else {
            return Ok(Lookup {
                credential: None,
                account: Account::NoneIn(Vec::new()),
            });
        };
        let files = self.files.get_or_try_init(|| load_all(paths)).await?;
        let mut looked_at: Vec<String> = paths.iter().map(|path| shown(path)).collect();
        for (path, file) in files {
            let found = file.find(&self.helpers, path, endpoint, repository);
            match found.await? {
                Found::Here(credential, origin) => {
                    return Ok(Lookup {
                        credential: Some(credential),
                        account: Account::From(origin),
                    });
                }
                Found::Nothing => {}
                Found::NoHelper(program) => {
                    if let Some(entry) = looked_at.iter_mut().find(|entry| **entry == shown(path)) {
                        *entry = format!("{entry} (its `{program}` is not installed)");
                    }
                }
            }
        }
        Ok(Lookup {
            credential: None,
            account: Account::NoneIn(looked_at),
        })
    }
}

impl Credentials {
    /// Forgets what helpers said about the registry at `endpoint`, which refused it.
    pub(crate) async fn forget(&self, endpoint: &Endpoint) {
        let server = endpoint.credential_key();
        let mut answers = self.helpers.0.lock().await;
        answers.retain(|(_, asked), _| asked != server);
    }
}

enum Found {
    Here(Credential, String),
    Nothing,
    NoHelper(String),
}

impl AuthFile {
    /// Looks for the registry's own helper, then for an entry, then in the store for all registries.
    async fn find(
        &self,
        helpers: &Helpers,
        path: &Path,
        endpoint: &Endpoint,
        repository: &str,
    ) -> Result<Found, Failure> {
        let key = endpoint.credential_key();
        let own_helper = self.cred_helpers.as_ref().and_then(|own| {
            let mut names = [endpoint.registry.as_str(), key].into_iter();
            names.find_map(|name| own.get(name).filter(|helper| !helper.is_empty()))
        });
        if let Some(helper) = own_helper {
            return match helpers.get(helper, key).await? {
                Answer::Credential(credential) => Ok(found_by(helper, credential)),
                Answer::NotFound => Ok(Found::Nothing),
                Answer::NotInstalled => Err(Failure::new(Cause::Credentials {
                    origin: shown(path),
                    reason: format!(
                        "it names `{}` for `{}`, which is not installed",
                        helper::program(helper),
                        endpoint.registry
                    ),
                })),
            };
        }
        if let Some((key, credential)) = self.entry(path, endpoint, repository)? {
            return Ok(Found::Here(
                credential,
                format!("{} (`{key}`)", shown(path)),
            ));
        }
        let Some(store) = self.creds_store.as_ref().filter(|store| !store.is_empty()) else {
            return Ok(Found::Nothing);
        };
        match helpers.get(store, key).await? {
            Answer::Credential(credential) => Ok(found_by(store, credential)),
            Answer::NotFound => Ok(Found::Nothing),
            // A file copied from a desktop must not keep others from public images.
            Answer::NotInstalled => Ok(Found::NoHelper(helper::program(store))),
        }
    }

    /// Returns the entry whose key is the longest prefix of registry and repository
    /// (`containers-auth.json(5)`), or names the registry the way old versions of Docker did.
    fn entry(
        &self,
        path: &Path,
        endpoint: &Endpoint,
        repository: &str,
    ) -> Result<Option<(&str, Credential)>, Failure> {
        let Some(auths) = &self.auths else {
            return Ok(None);
        };
        let full = format!("{}/{repository}", endpoint.registry);
        let prefixes = std::iter::successors(Some(full.as_str()), |name| {
            name.rsplit_once('/').map(|(parent, _)| parent)
        });
        let by_prefix = prefixes
            .filter_map(|name| auths.get_key_value(name))
            .chain(auths.get_key_value(endpoint.credential_key()));
        let by_old_name = auths
            .iter()
            .filter(|(key, _)| registry_of(key) == registry_of(&endpoint.registry));
        for (key, entry) in by_prefix.chain(by_old_name) {
            let credential = entry.credential().map_err(|reason| {
                Failure::new(Cause::Credentials {
                    origin: format!("{} (`{key}`)", shown(path)),
                    reason: reason.to_owned(),
                })
            })?;
            if let Some(credential) = credential {
                return Ok(Some((key, credential)));
            }
        }
        Ok(None)
    }
}

fn found_by(helper: &str, credential: Credential) -> Found {
    Found::Here(credential, format!("`{}`", helper::program(helper)))
}

impl AuthEntry {
    /// Returns what the entry holds; `None` for the empty entries that helpers leave behind.
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        let filled = |secret: &&Secret| !secret.expose().is_empty();
        if let Some(token) = self.identitytoken.as_ref().filter(filled) {
            return Ok(Some(Credential::Identity(token.clone())));
        }
        if let Some(token) = self.registrytoken.as_ref().filter(filled) {
            return Ok(Some(Credential::Bearer(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(filled) {
            return decode(auth).map(Some);
        }
        match (&self.username, &self.password) {
            (Some(username), Some(password)) if !username.is_empty() => {
                Ok(Some(Credential::Password {
                    username: username.clone(),
                    password: password.clone(),
                }))
            }
            _ => Ok(None),
        }
    }
}

/// Decodes `auth`, base64 of `user:password`, with or without padding.
fn decode(auth: &Secret) -> Result<Credential, &'static str> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, config)
        .decode(auth.expose().trim())
        .map_err(|_| "its `auth` is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "its `auth` is not UTF-8")?;
    let (username, password) = text
        .split_once(':')
        .ok_or("its `auth` is not `user:password`")?;
    Ok(Credential::Password {
        username: username.to_owned(),
        // Old versions of Docker padded the password with NUL bytes.
        password: Secret::new(password.trim_end_matches('\0')),
    })
}

/// Returns the registry that a key such as `https://HOST/v1/` means.
fn registry_of(key: &str) -> &str {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .map_or(key, |rest| rest.split('/').next().unwrap_or(rest));
    match bare {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        other => other,
    }
}

async fn load_all(paths: &[PathBuf]) -> Result<Vec<(PathBuf, AuthFile)>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let unreadable = |reason: String| {
            Failure::new(Cause::Credentials {
                origin: shown(path),
                reason,
            })
        };
        match tokio::fs::read(path).await {
            // Podman writes an empty file where there was none.
            Ok(bytes) if bytes.trim_ascii().is_empty() => {}
            Ok(bytes) => {
                let file = serde_json::from_slice(&bytes).map_err(|error| {
                    // The message of the error could quote a secret; its place cannot.
                    let (line, column) = (error.line(), error.column());
                    unreadable(format!("it is malformed at line {line}, column {column}"))
                })?;
                files.push((path.clone(), file));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error.to_string())),
        }
    }
    Ok(files)
}

fn shown(path: &Path) -> String {
    format!("`{}`", path.display())
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::Endpoints;
    use super::*;

    async fn lookup(content: &str, registry: &str, repository: &str) -> Result<Lookup, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, content).unwrap();
        let missing = directory.path().join("missing.json");
        Credentials::new(CredentialSource::Files(vec![missing, path]))
            .lookup(&Endpoints::default().of(registry).unwrap(), repository)
            .await
    }

    fn user(lookup: &Lookup) -> String {
        match &lookup.credential {
            None => "-".to_owned(),
            Some(Credential::Password { username, password }) => {
                format!("{username}:{}", password.expose())
            }
            Some(Credential::Identity(token)) => format!("identity {}", token.expose()),
            Some(Credential::Bearer(token)) => format!("bearer {}", token.expose()),
        }
    }

    #[tokio::test]
    async fn the_longest_key_wins() {
        let content = r#"{"auths": {
            "reg.example": {"auth": "aG9zdDpw"},
            "reg.example/team": {"auth": "dGVhbTpw"},
            "reg.example/team/app": {"auth": "YXBwOnA"},
            "https://old.example/v1/": {"auth": "b2xkOnBhOnNz"},
            "https://index.docker.io/v1/": {"auth": "aHViOnA="},
            "token.example": {"auth": "MDAwMDo=", "identitytoken": "idt"},
            "plain.example": {"username": "u", "password": "p"},
            "raw.example": {"registrytoken": "rt"},
            "empty.example": {},
            "padded.example": {"auth": "dTpwAAA="}
        }}"#;
        for (registry, repository, expected) in [
            ("reg.example", "x", "host:p"),
            ("reg.example", "team/other", "team:p"),
            ("reg.example", "team/app", "app:p"),
            ("reg.example", "team/app/deep", "app:p"),
            ("reg.example", "teams", "host:p"),
            ("reg.example:5000", "x", "-"),
            ("old.example", "x", "old:pa:ss"),
            ("docker.io", "library/debian", "hub:p"),
            ("token.example", "x", "identity idt"),
            ("plain.example", "x", "u:p"),
            ("raw.example", "x", "bearer rt"),
            ("empty.example", "x", "-"),
            ("padded.example", "x", "u:p"),
        ] {
            let found = lookup(content, registry, repository).await.unwrap();
            assert_eq!(user(&found), expected, "{registry}/{repository}");
            assert_eq!(
                matches!(found.account, Account::From(_)),
                expected != "-",
                "{registry}"
            );
        }
    }

    #[tokio::test]
    async fn all_spellings_of_docker_hub() {
        for key in [
            "docker.io",
            "index.docker.io",
            "registry-1.docker.io",
            "https://index.docker.io/v1/",
            "https://index.docker.io/v1",
            "docker.io/acme",
        ] {
            let content = format!(r#"{{"auths": {{"{key}": {{"auth": "aHViOnA="}}}}}}"#);
            let found = lookup(&content, "docker.io", "acme/app").await.unwrap();
            assert_eq!(user(&found), "hub:p", "{key}");
        }
    }

    #[tokio::test]
    async fn malformed_files_are_errors_without_secrets() {
        for (content, reason) in [
            ("{", "malformed at line 1"),
            (r#"{"auths": {"reg.example": {"auth": 12}}}"#, "malformed"),
            (
                r#"{"auths": {"reg.example": {"auth": "hunter2!"}}}"#,
                "not base64",
            ),
            (
                r#"{"auths": {"reg.example": {"auth": "aHVudGVyMg=="}}}"#,
                "not `user:password`",
            ),
            (
                r#"{"auths": {"reg.example": {"auth": "/zp4"}}}"#,
                "not UTF-8",
            ),
        ] {
            let error = lookup(content, "reg.example", "x").await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(reason), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        for content in ["", " \n", "{}", r#"{"auths": null, "credsStore": ""}"#] {
            let found = lookup(content, "reg.example", "x").await.unwrap();
            assert!(matches!(&found.account, Account::NoneIn(files) if files.len() == 2));
        }
    }

    #[tokio::test]
    async fn helpers_that_are_not_installed() {
        let store = r#"{"credsStore": "trilith-test-missing"}"#;
        let found = lookup(store, "reg.example", "x").await.unwrap();
        let Account::NoneIn(files) = found.account else {
            panic!("found something");
        };
        assert!(files[1].contains("`docker-credential-trilith-test-missing` is not installed"));
        let own = r#"{"credHelpers": {"reg.example": "trilith-test-missing"}}"#;
        let error = lookup(own, "reg.example", "x")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("for `reg.example`, which is not installed"),
            "{error}"
        );
        // Another registry's helper does not matter.
        assert!(lookup(own, "other.example", "x").await.is_ok());
    }
}
