//! What newer engines do, and what they do beyond that.

use std::sync::OnceLock;

use trilith_build::engine::{Engine, Feature, NamedContext};
use trilith_testkit::{Dockerd, DockerdOptions, HOST_GATEWAY, Release};

use crate::build::{Build, Told};
use crate::parts::Parts;
use crate::{builds, failures, images};

/// Returns an engine of trixie, and a registry; all tests here share them.
fn trixie() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| Parts::start(|| engine_of(Release::Trixie)))
}

fn engine_of(release: Release) -> Dockerd {
    Dockerd::start_with(DockerdOptions {
        release,
        ..DockerdOptions::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_older_engines_do() {
    let parts = trixie();
    builds::target_with_arguments_labels_and_hosts(parts).await;
    builds::secrets_show_nowhere(parts).await;
    failures::failing_step(parts).await;
    failures::dropped_build(parts).await;
    images::names_pushes(parts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_told_the_address_of_the_machine() {
    let parts = trixie();
    let mut build = Build::new(&format!("FROM {}\nRUN cat /etc/hosts\n", parts.base));
    build.extra_hosts = vec![("machine".to_owned(), "host-gateway".to_owned())];
    let told = Told::default();
    build.run(&parts.engine(), &told).await.unwrap();
    let log = told.log("RUN");
    assert!(log.contains(&format!("{HOST_GATEWAY}\tmachine")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_replace_stages() {
    let parts = trixie();
    let engine = parts.engine();
    let info = engine.info().await.unwrap();
    assert!(info.version.starts_with("26."), "{info:?}");
    assert!(
        info.capabilities.features.contains(&Feature::NamedContexts),
        "{info:?}"
    );
    let dockerfile = format!(
        "FROM {} AS deps\nRUN date +%s%N > /deps\nFROM deps AS runtime\nRUN cp /deps /copy\n",
        parts.base
    );
    let mut build = Build::new(&dockerfile);
    build.target = Some("deps");
    build.no_cache = true;
    let deps = build.run(&engine, &Told::default()).await.unwrap();
    let reference = parts.reference("acme/deps:1");
    engine.tag(&deps, &reference).await.unwrap();
    let digest = engine.push(&reference, &|_| ()).await.unwrap();

    let mut build = Build::new(&dockerfile);
    build.named_contexts = vec![NamedContext {
        stage: "deps".to_owned(),
        image: reference.pinned(digest),
    }];
    build.no_cache = true;
    let told = Told::default();
    let built = build.run(&engine, &told).await.unwrap();
    assert!(
        !format!("{:?}", told.all()).contains("RUN date"),
        "{:?}",
        told.all()
    );
    assert_eq!(parts.sh(&built, "cat /copy"), parts.sh(&deps, "cat /deps"));
}
