//! What a build makes, and what it is told.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use trilith_build::engine::{
    BuildSecret, CacheEntry, Engine as _, EngineKind, Feature, NamedContext, Network, SecretSource,
};
use trilith_oci::registry::Secret;
use trilith_testkit::{Format, ImageOptions, busybox_image};

use crate::build::Build;
use crate::parts::Parts;

/// Returns both generations.
fn both() -> [Parts; 2] {
    [Parts::new(), Parts::trixie()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_everything_that_can_be_set() {
    for parts in both() {
        let engine = parts.engine();
        let mut build = Build::new(
            "ARG BASE\nFROM $BASE AS deps\nARG WORD\nCOPY greet.sh /\n\
             RUN echo \"said $WORD\" >&2 && sh /greet.sh > /greeting && cat /etc/hosts > /hosts\n\
             HEALTHCHECK CMD true\nSHELL [\"/bin/sh\", \"-ec\"]\n\
             FROM deps AS other\nRUN exit 1\n",
        );
        build.file("greet.sh", "echo greetings\n");
        build.args.insert("BASE".to_owned(), parts.base.clone());
        build
            .args
            .insert("WORD".to_owned(), "a\n\"b\" $c".to_owned());
        for (name, value) in [("dev.trilith.level", "lock"), ("odd", "a \"b\" 'c' #\\")] {
            build.labels.insert(name.to_owned(), value.to_owned());
        }
        build.extra_hosts = vec![("extra.example".to_owned(), "10.1.2.3".to_owned())];
        build.network = Network::Host;
        build.target = Some("deps");
        let (image, told) = build.image(&engine).await;
        assert!(told.log().contains("said a\n\"b\" $c\n"), "{told:#?}");
        let said = parts.sh(
            image.id.hex(),
            "cat /greeting; stat -c %Y /greet.sh; grep -c extra /hosts",
        );
        assert_eq!(said, "greetings\n0\n1");
        let inspected = parts.say(&["image", "inspect", image.id.hex()]);
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        let labels = &inspected[0]["Labels"];
        assert_eq!(labels["odd"], "a \"b\" 'c' #\\");
        assert_eq!(labels["dev.trilith.level"], "lock");
        assert!(labels.get("io.buildah.version").is_none());
        let test = serde_json::json!(["CMD-SHELL", "true"]);
        assert_eq!(inspected[0]["Healthcheck"]["Test"], test);
        assert_eq!(
            inspected[0]["ManifestType"],
            "application/vnd.docker.distribution.manifest.v2+json"
        );
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_build_runs_no_step() {
    for parts in both() {
        let engine = parts.engine();
        let build = Build::new(&format!(
            "FROM {} AS deps\nCOPY lock /\nRUN touch /installed\nFROM deps\nCOPY --chmod=755 app /app\nRUN sh /app/run\n",
            parts.base
        ));
        build.file("lock", "1");
        build.file("app/run", "echo ran");
        let (first, told) = build.image(&engine).await;
        // The base has a trigger, which Podman counts too.
        let titles = told.titles();
        assert_eq!(
            [&titles[1..4], &titles[5..]].concat(),
            [
                "[deps 2/4] LABEL org.example.onbuild=ran",
                "[deps 3/4] COPY lock /",
                "[deps 4/4] RUN touch /installed",
                "[stage-1 2/3] COPY --chmod=755 app /app",
                "[stage-1 3/3] RUN sh /app/run",
                "[2/2] COMMIT",
            ]
        );
        assert!(!told.is_cached("[deps 1/3] FROM"), "it was pulled");
        assert!(!told.is_cached("touch"));
        let (again, told) = build.image(&engine).await;
        assert_eq!(first, again);
        for step in ["[deps 1/3] FROM", "touch", "sh /app/run"] {
            assert!(told.is_cached(step), "{step}");
        }
        build.file("app/run", "echo changed");
        let (changed, told) = build.image(&engine).await;
        assert_ne!(changed, again);
        assert!(told.is_cached("touch") && !told.is_cached("sh /app/run"));
        let mut anew = build;
        anew.no_cache = true;
        let (_, told) = anew.image(&engine).await;
        assert!(!told.is_cached("touch"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_replace_stages() {
    for parts in both() {
        let engine = parts.engine();
        let deps = Build::new(&format!(
            "FROM {}\nRUN echo replaced > /which\n",
            parts.base
        ));
        let (image, _) = deps.image(&engine).await;
        let name = parts.registry.reference("acme/deps:1").parse().unwrap();
        engine.tag(&image, &name).await.unwrap();
        let digest = engine.push(&name, &|_| {}).await.unwrap();
        engine.untag(&name).await.unwrap();
        assert_eq!(engine.find(&name).await.unwrap(), None);
        let mut build = Build::new(&format!(
            "FROM missing.invalid/never:1 AS below\nFROM below AS deps\nRUN exit 1\n\
             FROM deps AS mid\nRUN cp /which /mid\nFROM {} AS runtime\nCOPY --from=deps /which /w1\n\
             COPY --from=mid /mid /w2\n\
             RUN --mount=type=bind,from=deps,target=/m cat /m/which /w1 /w2 > /all\n",
            parts.base
        ));
        build.named_contexts.push(NamedContext {
            stage: "deps".to_owned(),
            image: name.pinned(digest),
        });
        let (image, _) = build.image(&engine).await;
        assert_eq!(
            parts.sh(image.id.hex(), "cat /all"),
            "replaced\nreplaced\nreplaced"
        );
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_mounted_and_leave_no_trace() {
    const VALUE: &str = "planted-value-1f3a\nsecond-planted-line";
    for parts in both() {
        let engine = parts.engine();
        let mut build = Build::new(&format!(
            "FROM {}\nRUN --mount=type=secret,id=value --mount=type=secret,id=file,target=/f \
             md5sum < /run/secrets/value > /sum; cat /run/secrets/value /f; exit 0\n",
            parts.base
        ));
        let file = parts.podman.dir().join("secret-file");
        fs::write(&file, "planted-file-7c2e").unwrap();
        build.secrets = vec![
            BuildSecret {
                id: "value".to_owned(),
                source: SecretSource::Value(Secret::new(VALUE)),
            },
            BuildSecret {
                id: "file".to_owned(),
                source: SecretSource::File(file.clone()),
            },
        ];
        let (image, told) = build.image(&engine).await;
        // `printf 'planted-value-1f3a\nsecond-planted-line' | md5sum`
        let sum = parts.sh(image.id.hex(), "cat /sum");
        assert_eq!(sum, "d73cac5e07a47318e32844de35150576  -");
        let archive = parts.temporary.path().join("image.tar");
        engine.save(&image, &archive).await.unwrap();
        let bytes = fs::read(&archive).unwrap();
        fs::remove_file(&archive).unwrap();
        let events = format!("{:?}", told.all());
        let history = parts.say(&["image", "inspect", image.id.hex()]);
        for secret in [
            "planted-value-1f3a",
            "second-planted-line",
            "planted-file-7c2e",
        ] {
            assert!(!events.contains(secret), "{events}");
            assert!(!history.contains(secret));
            let mut windows = bytes.windows(secret.len());
            assert!(!windows.any(|window| window == secret.as_bytes()));
        }
        assert!(events.contains("[redacted]"));
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_see_what_was_hashed_and_nothing_else() {
    for parts in both() {
        let engine = parts.engine();
        let build = Build::new(&format!("FROM {}\nCOPY . /c/\n", parts.base));
        build.file(".dockerignore", "hidden\nDockerfile\n");
        build.file(".containerignore", "shown\n");
        build.file("hidden", "");
        build.file("shown", "");
        build.file("locked/file", "");
        build.file("run", "");
        let mode = |name: &str, mode| {
            fs::set_permissions(build.path().join(name), Permissions::from_mode(mode)).unwrap();
        };
        // Podman takes off what sets the user, from wherever it copies.
        mode("run", 0o4711);
        mode("locked", 0o500);
        let (image, _) = build.image(&engine).await;
        let script = "cd /c && find . -mindepth 1 | sort && stat -c '%a %u %Y' run locked";
        assert_eq!(
            parts.sh(image.id.hex(), script),
            "./.containerignore\n./.dockerignore\n./locked\n./locked/file\n./run\n./shown\n\
             755 0 0\n555 0 0"
        );
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_in_a_registry() {
    for parts in both() {
        let engine = parts.engine();
        let mut build = Build::new(&format!("FROM {}\nRUN touch /slow\n", parts.base));
        let repository = parts.registry.reference("acme/cache");
        let cache = CacheEntry {
            kind: "registry".to_owned(),
            options: [("ref".to_owned(), repository)].into(),
        };
        build.cache_to = vec![cache.clone()];
        let (_, told) = build.image(&engine).await;
        assert!(!told.is_cached("touch"));
        assert!(!parts.registry.tags("acme/cache").is_empty());
        parts.say(&["rmi", "--all", "--force"]);
        build.cache_to.clear();
        build.cache_from = vec![cache];
        let (_, told) = build.image(&engine).await;
        assert!(told.is_cached("touch"), "{told:#?}");
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_is_asked_for_again_only_when_told_so() {
    for parts in both() {
        let engine = parts.engine();
        let mut build = Build::new(&format!("FROM {}\nLABEL a=b\n", parts.base));
        let (first, _) = build.image(&engine).await;
        let options = ImageOptions {
            format: Format::DockerV2s2,
            ..ImageOptions::default()
        };
        busybox_image(&parts.registry, "base:1", &options);
        let (same, _) = build.image(&engine).await;
        assert_eq!(same, first);
        parts.registry.forget_requests();
        build.pull = true;
        build.image(&engine).await;
        let requests = parts.registry.requests();
        assert!(
            requests
                .iter()
                .any(|request| request.path.ends_with("/manifests/1"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_can_do_is_asked_for() {
    let [old, new] = both();
    for (parts, version) in [(&old, "4.3."), (&new, "5.4.")] {
        let info = parts.engine().info().await.unwrap();
        assert_eq!(info.kind, EngineKind::Podman);
        assert!(info.version.starts_with(version), "{}", info.version);
        assert_eq!(info.address, parts.podman.program().to_str().unwrap());
        assert_eq!(
            info.capabilities.platforms,
            [trilith_core::Platform::host()]
        );
        for feature in [
            Feature::NamedContexts,
            Feature::Secrets,
            Feature::Ssh,
            Feature::CacheImport,
            Feature::CacheExport,
            Feature::Load,
            Feature::Push,
        ] {
            assert!(info.capabilities.features.contains(&feature), "{feature:?}");
        }
    }
}
