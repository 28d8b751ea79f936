//! Registries: the client of the OCI distribution API 1.1.
//!
//! [`RegistryClient`] is the process's connections, tokens and limits; a
//! [`RegistryRepository`] is one repository seen through it, an [`crate::ImageStore`] like a
//! layout on disk. The client reads no environment, prints nothing, keeps no blob in memory,
//! and never takes silence or a refusal for absence: only a `404` means that something is not there.
//!
//! | file | holds |
//! | --- | --- |
//! | `client` | the client, and the loop of attempts around each request |
//! | `exchange` | one request: redirects, limits of size and time |
//! | `transport` | connections and TLS |
//! | `auth`, `challenge`, `token` | who we are to a registry |
//! | `credentials`, `helper` | credential files and helpers |
//! | `endpoint` | HTTP or HTTPS, and where a registry may send us |
//! | `repository`, `manifests`, `referrers` | what is asked and stored |
//! | `upload`, `download` | blobs on their way |

mod auth;
mod challenge;
mod client;
mod config;
mod credentials;
mod download;
mod endpoint;
mod exchange;
mod failure;
mod helper;
mod host;
mod known;
mod manifests;
mod observe;
mod referrers;
mod removal;
mod repository;
mod retry;
mod secret;
mod token;
mod transport;
mod upload;

pub use client::RegistryClient;
pub use config::{CaCertificates, CredentialPlaces, Observer, Proxies, RegistryConfig, Timeouts};
pub use credentials::{Credential, CredentialSource};
pub use failure::{Account, Cause, Failure, RequestName, RootCause, ServerMessage};
pub use observe::{Event, Stats};
pub use repository::RegistryRepository;
pub use retry::RetryPolicy;
pub use secret::Secret;
