//! A Podman behind a socket, as `CONTAINER_HOST` names one.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use trilith_build::engine::{BuildSecret, Engine as _, EngineError, Podman, SecretSource};
use trilith_oci::registry::Secret;

use crate::build::Build;
use crate::parts::{Parts, registry_client};

/// The socket of a Podman, and what listens there.
struct Service {
    child: Child,
    address: String,
}

impl Service {
    fn start(parts: &Parts) -> Self {
        let socket = parts.podman.dir().join("podman.sock");
        let address = format!("unix://{}", socket.display());
        let mut podman = parts.podman.podman();
        let child = podman
            .args(["system", "service", "--time=0", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "the service does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_podman_behind_a_socket() {
    let parts = Parts::new();
    let mut service = Service::start(&parts);
    let mut options = parts.options();
    let host = ("CONTAINER_HOST".to_owned(), Some(service.address.clone()));
    options.environment.push(host);
    let engine = Podman::new(options, registry_client(Vec::new()));
    let info = engine.info().await.unwrap();
    assert_eq!(info.address, service.address);

    let mut build = Build::new(&format!(
        "FROM {}\nCOPY . /c/\nRUN --mount=type=secret,id=s cat /run/secrets/s | md5sum > /sum\n",
        parts.base
    ));
    build.file(".dockerignore", "hidden\n");
    build.file(".containerignore", "shown\n");
    build.file("hidden", "");
    build.file("shown", "");
    build.secrets.push(BuildSecret {
        id: "s".to_owned(),
        source: SecretSource::Value(Secret::new("planted")),
    });
    let (image, _) = build.image(&engine).await;
    assert_eq!(
        parts.sh(image.id.hex(), "cat /sum; cd /c; find . -type f | sort"),
        "08297c071792bd9856adcc8299be428e  -\n./.containerignore\n./.dockerignore\n./Dockerfile\n./shown"
    );
    let name = parts.registry.reference("acme/remote:1").parse().unwrap();
    engine.tag(&image, &name).await.unwrap();
    let digest = engine.push(&name, &|_| {}).await.unwrap();
    let manifest = parts.registry.manifest("acme/remote", "1").unwrap();
    assert_eq!(manifest.digest, digest.as_str());

    let (error, _) = Build::new(&format!("FROM {}\nRUN exit 4\n", parts.base))
        .error(&engine)
        .await;
    assert!(
        matches!(&error, EngineError::Step { reason, .. } if reason == "exit code: 4"),
        "{error:?}"
    );

    parts.assert_clean();
    service.child.kill().unwrap();
    service.child.wait().unwrap();
    let (error, _) = build.error(&engine).await;
    assert!(error.is_retryable(), "{error:?}");
}
