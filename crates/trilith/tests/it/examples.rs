//! The examples that need an engine really build: from packages of Debian, of `PyPI` and of npm.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use trilith_testkit::{
    Dockerd, Format, Project, Registry, RegistryOptions, assert_success, debian_image, stdout_of,
};

use crate::support::{Trilith, path};

/// Where a base image for tests has the certificates that this machine trusts.
const CERTIFICATES: &str = "/etc/trilith-test/ca.crt";

/// An engine with the network of this machine, and a registry.
struct Parts {
    dockerd: Dockerd,
    registry: Registry,
    trilith: Trilith,
}

impl Parts {
    fn start() -> Self {
        Self {
            dockerd: Dockerd::start(),
            registry: Registry::start(RegistryOptions::default()),
            trilith: Trilith::new(),
        }
    }

    /// Puts `layers` and what this machine trusts on a Debian, and returns the name of that.
    fn base(&self, layers: &Project, recipe: &str) -> String {
        let debian = debian_image(&self.registry, "debian:bookworm", Format::Oci, false);
        let trusted = std::fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap();
        layers.write("ca.crt", trusted);
        let variables = ["SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"];
        let env: Vec<String> = variables
            .iter()
            .map(|name| format!("{name} = \"{CERTIFICATES}\""))
            .collect();
        layers.write(
            "trilith.toml",
            format!(
                "[image]\nrepository = \"{}\"\nversion = \"1\"\nbase = \"{}\"\n{recipe}\n\
                 [[layer]]\nlevel = \"source\"\ncopy = \"ca.crt\"\nto = \"{CERTIFICATES}\"\n\
                 [config]\nenv = {{ {} }}\n",
                self.registry.reference("acme/base"),
                debian.reference,
                env.join(", ")
            ),
        );
        let built = self.trilith.push(layers);
        built["reference"].as_str().unwrap().to_owned()
    }

    fn build(&self, project: &Project, base: &str) -> Value {
        let mut command = self.trilith.command();
        command
            .args(["build", "--builder", "docker", "--network", "host"])
            .args(["--push", "--load", "--format", "json"])
            .args(["--base-image", base, "--project", path(project)])
            .args(["--repository", &self.registry.reference("acme/runtime")])
            .env("DOCKER_HOST", self.dockerd.host());
        let output = assert_success(&mut command);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a program in the image that was built.
    fn run(&self, built: &Value, program: &[&str]) -> String {
        let mut command = self.dockerd.docker();
        command.args(["run", "--rm", "--network", "none"]);
        let image = built["reference"].as_str().unwrap();
        stdout_of(command.arg(image).args(program))
    }
}

/// Returns a copy of an example.
fn example(name: &str) -> Project {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    Project::copy_of(&examples.join(name))
}

fn levels(built: &Value) -> usize {
    built["tags"].as_array().unwrap().len()
}

#[test]
fn a_runtime_for_python() {
    let parts = Parts::start();
    let base = parts.base(&Project::empty(), "");
    let project = example("python-uv");
    let first = parts.build(&project, &base);
    assert_eq!(levels(&first), 3, "{first}");
    let program = [
        "python3",
        "-c",
        "import app.__main__ as m, os; print(m.state()['status'], os.getuid(), os.getcwd())",
    ];
    assert_eq!(parts.run(&first, &program), "ok 10001 /workspace");

    project.write("app/extra.py", "x = 1\n");
    let changed = parts.build(&project, &base);
    assert_eq!(levels(&changed), 1);
    // What copies the code and names its directory, and nothing that installs.
    assert_eq!(changed["telemetry"]["step_count"], 2, "{changed}");
}

#[test]
fn a_runtime_for_node() {
    let parts = Parts::start();
    let node = Project::empty();
    for program in ["/usr/bin/node", "/usr/lib/node_modules/npm"] {
        let copied = node.path().join(Path::new(program).file_name().unwrap());
        assert_success(Command::new("cp").args(["-rL", program]).arg(copied));
    }
    node.write(
        "bin/npm",
        "#!/bin/sh\nexec node /usr/lib/node_modules/npm/bin/npm-cli.js \"$@\"\n",
    );
    node.set_mode("bin/npm", 0o755);
    let base = parts.base(
        &node,
        "[inputs]\nignore = []\n\
         [[layer]]\nlevel = \"lock\"\ncopy = \"node\"\nto = \"/usr/bin/node\"\n\
         [[layer]]\nlevel = \"lock\"\ncopy = \"npm\"\nto = \"/usr/lib/node_modules/npm\"\n\
         [[layer]]\nlevel = \"lock\"\ncopy = \"bin/npm\"\nto = \"/usr/bin/npm\"",
    );
    let project = example("node");
    let first = parts.build(&project, &base);
    assert_eq!(levels(&first), 3, "{first}");
    let program = [
        "sh",
        "-c",
        "cd /opt/app && node -e \"console.log(require('ws').length)\"",
    ];
    assert_eq!(parts.run(&first, &program), "3");

    project.write("src/extra.js", "export const x = 1;\n");
    let changed = parts.build(&project, &base);
    assert_eq!(levels(&changed), 1);
    assert_eq!(changed["telemetry"]["step_count"], 2, "{changed}");
}
