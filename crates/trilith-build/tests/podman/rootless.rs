//! Podman without root: as a user who has subordinate ids and nothing else.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trilith_build::engine::{
    BuildSecret, Engine as _, Export, Podman, PodmanOptions, Progress, SecretSource,
};
use trilith_oci::registry::Secret;
use trilith_testkit::{
    ImageOptions, Registry, RegistryOptions, Rootless, busybox_image, stdout_of,
};

use crate::build::Build;
use crate::parts::{files, registry_client};

/// Set for [`as_the_user`]: where contexts are unpacked, and the base image.
const VARIABLES: [&str; 2] = ["TRILITH_TEST_TEMPORARY", "TRILITH_TEST_BASE"];

#[test]
fn a_user_without_rights_builds() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let user = Rootless::new();
    let work = user.temporary().join("work");
    stdout_of(user.command("mkdir").arg(&work));
    let [temporary, image] = VARIABLES;
    let variables = [
        (temporary, work.to_str().unwrap()),
        (image, &base.reference),
    ];
    let said = user.run_test("rootless::as_the_user", &variables);
    assert!(said.contains("built as a user"), "{said}");
    assert!(registry.manifest("acme/rootless", "1").is_some());
}

/// What the user does. Without the variables it is not the user who runs this.
#[tokio::test(flavor = "multi_thread")]
async fn as_the_user() {
    let [Ok(temporary), Ok(base)] = VARIABLES.map(std::env::var) else {
        return;
    };
    let temporary = PathBuf::from(temporary);
    let engine = Podman::new(
        PodmanOptions::new(temporary.clone()),
        registry_client(Vec::new()),
    );
    let mut build = Build::new(&format!(
        "FROM {base}\nCOPY . /c/\n\
         RUN --mount=type=secret,id=s test \"$(cat /run/secrets/s)\" = planted && mkdir /own && chown 10001 /own\n\
         USER 10001\nRUN touch /own/x && test \"$(stat -c %u:%a /c/locked)\" = 0:555\n"
    ));
    build.file("locked/file", "");
    std::fs::set_permissions(
        build.path().join("locked"),
        std::os::unix::fs::PermissionsExt::from_mode(0o500),
    )
    .unwrap();
    build.secrets.push(BuildSecret {
        id: "s".to_owned(),
        source: SecretSource::Value(Secret::new("planted")),
    });
    let (image, _) = build.image(&engine).await;
    let registry = base.split('/').next().unwrap();
    let name = format!("{registry}/acme/rootless:1").parse().unwrap();
    engine.tag(&image, &name).await.unwrap();
    engine.push(&name, &|_| {}).await.unwrap();
    assert_eq!(files(&temporary), Vec::<PathBuf>::new());

    let endless = Build::new(&format!(
        "FROM {base}\nUSER 10001\nRUN echo started; sleep 76543\n"
    ));
    let started = AtomicBool::new(false);
    let observer = |progress| {
        if matches!(progress, Progress::Log { text, .. } if text.contains("started")) {
            started.store(true, Ordering::SeqCst);
        }
    };
    let request = endless.request();
    tokio::select! {
        ended = engine.build(&request, Export::Keep, &observer) => panic!("{ended:?}"),
        () = async {
            while !started.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        } => {}
    }
    let mut podman = std::process::Command::new("podman");
    assert_eq!(
        stdout_of(podman.args(["ps", "--all", "--external", "--quiet"])),
        ""
    );
    crate::failures::assert_gone("sleep\u{0}76543").await;
    assert_eq!(files(&temporary), Vec::<PathBuf>::new());
    println!("built as a user");
}
