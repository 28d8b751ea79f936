//! An engine, a registry with a base image, and a Trilith that uses both.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use trilith_testkit::{
    Dockerd, DockerdOptions, ImageOptions, Podman, PodmanOptions, Registry, RegistryOptions,
    Release, assert_success, busybox_image, run,
};

use crate::support::{Trilith, podman_environment};

/// An engine that starts empty.
pub(super) struct Engine {
    name: &'static str,
    /// The network in which this engine reaches the agent without changing this machine's; its
    /// default if `None`.
    network: Option<&'static str>,
    environment: Vec<(String, String)>,
    service: Service,
    pub(super) trilith: Trilith,
    pub(super) registry: Registry,
    /// Busybox on nothing.
    pub(super) base: String,
}

/// Starts an engine.
pub(super) type Start = fn() -> Engine;

/// What runs.
enum Service {
    Docker(Dockerd),
    /// In a network of its own, in which there is no registry.
    BridgedDocker(Dockerd),
    Podman(Podman),
    /// As Docker.
    BridgedPodman(Podman),
}

impl Engine {
    fn new(
        name: &'static str,
        network: Option<&'static str>,
        environment: Vec<(String, String)>,
        service: Service,
    ) -> Self {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        Self {
            name,
            network,
            environment,
            service,
            trilith: Trilith::new(),
            base: base.reference,
            registry,
        }
    }

    pub(super) fn docker_20() -> Self {
        let dockerd = Dockerd::start();
        let environment = vec![("DOCKER_HOST".to_owned(), dockerd.host())];
        Self::new(
            "docker",
            Some("host"),
            environment,
            Service::Docker(dockerd),
        )
    }

    pub(super) fn bridged_docker_20() -> Self {
        Self::bridged_docker(Release::Bookworm)
    }

    pub(super) fn bridged_docker_26() -> Self {
        Self::bridged_docker(Release::Trixie)
    }

    fn bridged_docker(release: Release) -> Self {
        let dockerd = Dockerd::start_with(DockerdOptions {
            release,
            bridge: true,
            ..DockerdOptions::default()
        });
        let environment = vec![("DOCKER_HOST".to_owned(), dockerd.host())];
        Self::bridged("docker", environment, Service::BridgedDocker(dockerd))
    }

    fn bridged(name: &'static str, environment: Vec<(String, String)>, service: Service) -> Self {
        let mut engine = Self::new(name, None, environment, service);
        let base = format!("oci:{}:1", engine.trilith.home().join("base").display());
        engine.trilith.json(&["copy", &engine.base, &base]);
        engine.base = base;
        engine
    }

    pub(super) fn podman_4() -> Self {
        let podman = Podman::new();
        let (environment, network) = (podman_environment(&podman), Some("slirp4netns"));
        Self::new("podman", network, environment, Service::Podman(podman))
    }

    pub(super) fn podman_5() -> Self {
        let podman = Podman::trixie();
        let (environment, network) = (podman_environment(&podman), Some("host"));
        Self::new("podman", network, environment, Service::Podman(podman))
    }

    pub(super) fn bridged_podman_5() -> Self {
        let podman = Podman::with(PodmanOptions {
            release: Release::Trixie,
            bridge: true,
            ..PodmanOptions::default()
        });
        let environment = podman_environment(&podman);
        Self::bridged("podman", environment, Service::BridgedPodman(podman))
    }

    /// Returns `command` as it is run where the engine publishes ports.
    pub(super) fn beside(&self, command: Command) -> Command {
        match &self.service {
            Service::BridgedDocker(dockerd) => dockerd.inside_network(&command),
            Service::BridgedPodman(podman) => podman.inside_network(&command),
            Service::Docker(_) | Service::Podman(_) => command,
        }
    }

    /// Returns the command under test.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.trilith.command();
        command
            .args(arguments)
            .envs(self.environment.iter().cloned());
        self.beside(command)
    }

    /// Returns the command that starts a workspace and says so in JSON.
    pub(super) fn start_command(&self, arguments: &[&str]) -> Command {
        self.plain_start_command(&[&["--format", "json"], arguments].concat())
    }

    /// Returns the command that starts a workspace and says so in words.
    pub(super) fn plain_start_command(&self, arguments: &[&str]) -> Command {
        let network = self.network.map(|network| ["--network", network]);
        let mut words = vec!["run", "--engine", self.name];
        words.extend(network.iter().flatten().chain(arguments));
        self.command(&words)
    }

    /// Returns the command that starts a workspace without a network.
    pub(super) fn lonely_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&["run", "--engine", self.name]);
        command.args(arguments);
        command
    }

    /// Returns what the only container has written; nothing where there is none yet.
    pub(super) fn logs_of_only_container(&self) -> String {
        let containers = self.containers();
        let Some(id) = containers.first() else {
            return String::new();
        };
        let output = self.run_client(&["logs", id]);
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Starts a workspace and returns what is said of it.
    pub(super) fn start(&self, arguments: &[&str]) -> Value {
        let output = assert_success(&mut self.start_command(arguments));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that says something.
    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        let output = assert_success(self.command(arguments).args(["--format", "json"]));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a program in a workspace, and gives it `input`.
    pub(super) fn exec(&self, id: &str, flags: &[&str], argv: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(&["exec"]);
        command.args(flags).args([id, "--"]).args(argv);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // A program that does not read has ended.
            let _unread = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// Returns the ids of all containers there are.
    pub(super) fn containers(&self) -> Vec<String> {
        let output = self.client(&["ps", "--all", "--quiet", "--no-trunc"]);
        output.split_whitespace().map(str::to_owned).collect()
    }

    /// Returns what the engine's own client says.
    pub(super) fn client(&self, arguments: &[&str]) -> String {
        let output = self.run_client(arguments);
        assert!(output.status.success(), "{output:?}");
        let (mut text, stderr) = (output.stdout, output.stderr);
        text.extend(stderr);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn run_client(&self, arguments: &[&str]) -> Output {
        let mut client = match &self.service {
            Service::Docker(dockerd) | Service::BridgedDocker(dockerd) => dockerd.docker(),
            Service::Podman(podman) | Service::BridgedPodman(podman) => podman.podman(),
        };
        run(client.args(arguments))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // So that the engine has nothing to end.
        let _none = run(&mut self.command(&["stop", "--all"]));
    }
}
