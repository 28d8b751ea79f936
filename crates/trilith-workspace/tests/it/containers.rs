//! Workspaces in containers, of engines that start empty.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use trilith_build::Context;
use trilith_build::engine::{
    ContainerState, Containers, EngineAddresses, EngineKind, Podman, PodmanOptions, open_containers,
};
use trilith_oci::registry::{RegistryClient, RegistryConfig};
use trilith_testkit::{
    Dockerd, DockerdOptions, Registry, RegistryOptions, Release, Rootless, git_image,
};
use trilith_workspace::{
    Command, DockerWorkspace, Error, Records, RemoteWorkspace, SessionKey, StartOptions,
    Workspace as _, find_workspaces,
};

use crate::conformance::{conforms, sh};

/// Set for [`as_the_user`]: the image.
const VARIABLE: &str = "TRILITH_TEST_BASE";

#[tokio::test(flavor = "multi_thread")]
async fn docker_20_10_conforms() {
    docker_conforms(Release::Bookworm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_26_1_conforms() {
    docker_conforms(Release::Trixie).await;
}

async fn docker_conforms(release: Release) {
    let dockerd = Dockerd::start_with(DockerdOptions {
        release,
        ..DockerdOptions::default()
    });
    // Where the newer one, in a root of its own, sees it.
    let temporary = tempfile::tempdir_in(dockerd.dir()).unwrap();
    let context = context(temporary.path(), Some(dockerd.host()));
    let engine = open_containers(EngineKind::Docker, &context.engines, &context.registry);
    suite(&context, engine.unwrap(), "host", temporary.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_4_3_conforms() {
    podman_conforms(&trilith_testkit::Podman::new(), "slirp4netns").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_5_4_conforms() {
    podman_conforms(&trilith_testkit::Podman::trixie(), "host").await;
}

async fn podman_conforms(podman: &trilith_testkit::Podman, network: &str) {
    let temporary = tempfile::tempdir().unwrap();
    let context = context(temporary.path(), None);
    let options = PodmanOptions {
        program: podman.program(),
        environment: podman.environment(),
        temporary: temporary.path().to_owned(),
    };
    let engine = Arc::new(Podman::new(options, context.registry.clone()));
    suite(&context, engine, network, temporary.path()).await;
}

/// Podman without root: as a user who has subordinate ids and nothing else.
#[test]
fn a_user_without_rights_conforms() {
    let registry = Registry::start(RegistryOptions::default());
    let base = git_image(&registry, "base:1").reference;
    let user = Rootless::new();
    let said = user.run_test("containers::as_the_user", &[(VARIABLE, &base)]);
    assert!(said.contains("conforms as a user"), "{said}");
}

/// What the user does. Without the variable it is not the user who runs this.
#[tokio::test(flavor = "multi_thread")]
async fn as_the_user() {
    let Ok(base) = std::env::var(VARIABLE) else {
        return;
    };
    let temporary = tempfile::tempdir().unwrap();
    let context = context(temporary.path(), None);
    let options = PodmanOptions::new(temporary.path().to_owned());
    let engine = Arc::new(Podman::new(options, context.registry.clone()));
    let place = Place {
        context: &context,
        engine,
        records: Records::new(temporary.path().join("records")),
        options: start_options("slirp4netns", temporary.path(), &base),
    };
    let workspace = place.start().await;
    // With cgroups v1 nothing holds back what a user without rights starts.
    works(&workspace).await;
    ends(&place, workspace).await;
    println!("conforms as a user");
}

fn context(directory: &Path, docker_host: Option<String>) -> Context {
    Context {
        registry: RegistryClient::try_new(RegistryConfig::default()).unwrap(),
        store: directory.join("store"),
        cache: None,
        docker_host: docker_host.clone(),
        engines: EngineAddresses {
            docker_host,
            temporary: directory.to_owned(),
            ..EngineAddresses::default()
        },
        observer: Box::new(|_| {}),
    }
}

async fn suite(context: &Context, engine: Arc<dyn Containers>, network: &str, directory: &Path) {
    let registry = Registry::start(RegistryOptions::default());
    let base = git_image(&registry, "base:1").reference;
    let place = Place {
        context,
        engine,
        records: Records::new(directory.join("records")),
        options: start_options(network, directory, &base),
    };
    let workspace = place.start().await;
    works(&workspace).await;
    is_held_back(&place, &workspace).await;
    ends(&place, workspace).await;
}

/// Where workspaces are started, and how.
struct Place<'c> {
    context: &'c Context,
    engine: Arc<dyn Containers>,
    records: Records,
    options: StartOptions,
}

impl Place<'_> {
    async fn start(&self) -> DockerWorkspace {
        let (engine, never) = (Arc::clone(&self.engine), std::future::pending());
        let started =
            DockerWorkspace::start(self.context, engine, &self.records, &self.options, never);
        started.await.unwrap()
    }

    async fn assert_gone(&self, id: &str) {
        let left = find_workspaces(self.engine.as_ref()).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert!(matches!(self.records.find(id), Err(Error::Missing(_))));
    }
}

/// Returns how workspaces of `base`, which has git, are started.
fn start_options(network: &str, directory: &Path, base: &str) -> StartOptions {
    let given = directory.join("given");
    fs::create_dir(&given).unwrap();
    fs::write(given.join("file"), "from this machine").unwrap();
    StartOptions {
        network: Some(network.to_owned()),
        volumes: vec![format!("{}:/given:ro", given.display())],
        memory: 256 << 20,
        ..StartOptions::new(base.parse().unwrap())
    }
}

async fn works(workspace: &DockerWorkspace) {
    let record = workspace.record();
    let said = sh(workspace, "cat /given/file; touch /given/file || echo :").await;
    assert_eq!(said, "from this machine:\n");
    sh(workspace, "mkdir /tmp/one /tmp/two").await;
    conforms(workspace, "/tmp/one").await;

    let remote = RemoteWorkspace::try_new(&record.url, record.key.clone()).unwrap();
    conforms(&remote, "/tmp/two").await;
    for outcome in [remote.pause().await, remote.resume().await] {
        assert!(matches!(outcome, Err(Error::Unable { .. })), "{outcome:?}");
    }
    remote.stop().await.unwrap();
    let stranger =
        RemoteWorkspace::try_new(&record.url, SessionKey::new("wrong".to_owned())).unwrap();
    let refused = stranger.download("/etc/passwd", &mut Vec::new()).await;
    assert!(refused.is_err());
}

async fn is_held_back(place: &Place<'_>, workspace: &DockerWorkspace) {
    // What uses the memory up is killed, and the agent lives to tell.
    let greedy =
        Command::shell("echo >&2 begun; exec dd if=/dev/zero of=/dev/null bs=400M count=1");
    let output = workspace.output(&greedy).await.unwrap();
    assert_eq!(output.ended.exit_code, Some(137), "{output:?}");
    let note = output.ended.note.unwrap();
    assert!(note.starts_with("Out of memory: "), "{note}");
    assert_eq!(output.stderr, b"begun\n");
    assert!(!Path::new("oom").exists(), "Podman left a file here");

    workspace.pause().await.unwrap();
    let found = place.engine.container(&workspace.record().id).await;
    assert_eq!(found.unwrap().unwrap().state, ContainerState::Paused);
    assert!(!workspace.is_healthy().await);
    workspace.resume().await.unwrap();
    assert!(workspace.is_healthy().await);
}

async fn ends(place: &Place<'_>, workspace: DockerWorkspace) {
    workspace.stop().await.unwrap();
    assert!(!workspace.is_healthy().await);
    workspace.stop().await.unwrap();
    place.assert_gone(&workspace.record().id).await;

    let dropped = place.start().await;
    let id = dropped.record().id.clone();
    drop(dropped);
    place.assert_gone(&id).await;

    let kept = place.start().await;
    kept.keep();
    let id = kept.record().id.clone();
    drop(kept);
    assert_eq!(place.records.find(&id).unwrap().id, id);
    place.engine.remove(&id, Duration::ZERO).await.unwrap();
}
