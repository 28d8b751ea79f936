//! Builds that fail, hang, or are not wanted any more.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trilith_build::engine::{
    CacheEntry, Engine as _, EngineError, Export, NamedContext, Podman, PodmanOptions, Progress,
};
use trilith_oci::Kind;

use crate::build::{Build, Told};
use crate::parts::{Parts, files, registry_client};

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_tells_the_end_of_what_it_wrote() {
    for parts in [Parts::new(), Parts::trixie()] {
        let engine = parts.engine();
        let build = Build::new(&format!(
            "FROM {} AS deps\nRUN for i in $(seq 1 200); do echo line $i; done; \
             sleep 1; echo to stderr >&2; exit 7\nFROM deps\n",
            parts.base
        ));
        let (error, told) = build.error(&engine).await;
        let EngineError::Step { step, reason, log } = &error else {
            panic!("{error:?}");
        };
        assert!(step.starts_with("[deps 3/3] RUN for i in "), "{step}");
        assert_eq!(reason, "exit code: 7");
        // In which order the two streams come, Podman does not say; so the step lets one come first.
        let has = |line: &str| log.iter().any(|other| other == line);
        assert_eq!(log.len(), 50, "{log:?}");
        assert!(has("line 200") && has("to stderr"), "{log:?}");
        assert!(has("line 152") && !has("line 150"), "{log:?}");
        assert!(told.log().contains("line 1\n"));
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_built_is_told_apart() {
    for parts in [Parts::new(), Parts::trixie()] {
        let engine = parts.engine();
        let base = &parts.base;
        let missing = parts.registry.reference("acme/missing:1");
        for (dockerfile, kind, expected) in [
            (
                format!("FROM {missing}\n"),
                Kind::NotFound,
                format!("podman failed to pull `{missing}`: "),
            ),
            (
                format!("FROM {base} AS a\nCOPY nothing /\n"),
                Kind::System,
                "step `[a 3/3] COPY nothing /` failed: checking on sources under \"the context\": "
                    .to_owned(),
            ),
            (
                format!("FROM {base}\nNOTHING at all\n"),
                Kind::System,
                "step `[3/3] NOTHING at all` failed: Build error: Unknown instruction".to_owned(),
            ),
        ] {
            let (error, _) = Build::new(&dockerfile).error(&engine).await;
            assert!(error.to_string().starts_with(&expected), "{error}");
            assert_eq!(error.kind(), kind, "{error}");
        }
        let mut build = Build::new(&format!("FROM {base}\n"));
        build.target = Some("nothing");
        let (error, _) = build.error(&engine).await;
        let expected = "podman failed to build `the image`: ";
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(error.to_string().contains("nothing"), "{error}");
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_platform_is_no_success() {
    for parts in [Parts::new(), Parts::trixie()] {
        let mut build = Build::new(&format!("FROM {}\nLABEL a=b\n", parts.base));
        build.platform = "linux/s390x".parse().unwrap();
        let (error, _) = build.error(&parts.engine()).await;
        assert!(error.to_string().contains("s390x"), "{error}");
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_do_is_refused() {
    let parts = Parts::new();
    let engine = parts.engine();
    let base = &parts.base;
    let cache = |kind: &str, repository: &str| CacheEntry {
        kind: kind.to_owned(),
        options: [("ref".to_owned(), repository.to_owned())].into(),
    };
    let mut local = Build::new(&format!("FROM {base}\n"));
    local.cache_from = vec![cache("local", "x")];
    let mut tagged = Build::new(&format!("FROM {base}\n"));
    tagged.cache_from = vec![cache("registry", "ghcr.example/acme/cache:1")];
    let mut several = Build::new(&format!("FROM {base}\n"));
    several.cache_to = ["a.example/a", "b.example/b"]
        .map(|name| cache("registry", name))
        .into();
    let mut gateway = Build::new(&format!("FROM {base}\n"));
    gateway.extra_hosts = vec![("host".to_owned(), "host-gateway".to_owned())];
    let heredoc = Build::new(&format!("FROM {base}\nRUN <<EOF\necho here\nEOF\n"));
    for (build, expected) in [
        (&local, "cannot use a cache that is not in a registry"),
        (&tagged, "failed to use cache `ghcr.example/acme/cache:1`"),
        (&several, "cannot use several caches at once"),
        (&gateway, "cannot give steps the address of the host"),
        (&heredoc, "cannot read here-documents"),
    ] {
        let (error, _) = build.error(&engine).await;
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind(), Kind::Usage);
    }
    let request = local.request();
    let archive = Export::Archive(parts.temporary.path());
    let error = engine.build(&request, archive, &|_| {}).await.unwrap_err();
    assert!(matches!(error, EngineError::Unsupported { .. }), "{error}");
    parts.assert_clean();

    let newer = Parts::trixie();
    let heredoc = Build::new(&format!("FROM {}\nRUN <<EOF\necho here\nEOF\n", newer.base));
    let (_, told) = heredoc.image(&newer.engine()).await;
    assert!(told.log().contains("here\n"), "{told:#?}");
    let mut label = Build::new(&format!("FROM {}\n", newer.base));
    label.labels.insert("price".to_owned(), "$5".to_owned());
    let (error, _) = label.error(&newer.engine()).await;
    assert!(
        error.to_string().contains("label `price` is not"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_plain_registry_does_not_open_the_way_to_others() {
    let parts = Parts::new();
    // Writes down how it is called.
    let calls = parts.podman.dir().join("calls");
    let script = parts.podman.dir().join("script");
    let text = format!(
        "#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n",
        calls.display(),
        parts.podman.program().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let options = PodmanOptions {
        program: script,
        ..parts.options()
    };
    let engine = Podman::new(options, registry_client(Vec::new()));
    let mut build = Build::new(&format!(
        "FROM {} AS a\nFROM scratch\nCOPY --from=a /etc/motd /\nCOPY --from=missing.invalid/x:1 / /\n",
        parts.base
    ));
    let (_, told) = build.error(&engine).await;
    assert_eq!(told.titles()[0], format!("pull {}", parts.base));
    let calls = std::fs::read_to_string(calls).unwrap();
    let plain: Vec<&str> = calls
        .lines()
        .filter(|call| call.contains("--tls-verify=false"))
        .collect();
    assert!(plain.len() == 1 && plain[0].starts_with("pull "), "{calls}");

    build.cache_from = vec![CacheEntry {
        kind: "registry".to_owned(),
        options: [("ref".to_owned(), parts.registry.reference("acme/cache"))].into(),
    }];
    let (error, _) = build.error(&engine).await;
    assert_eq!(error.kind(), Kind::Usage, "{error}");
    parts.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_build_leaves_nothing() {
    for parts in [Parts::new(), Parts::trixie()] {
        let engine = parts.engine();
        let build = Build::new(&format!(
            "FROM {} AS deps\nRUN touch /x\nFROM deps\nRUN echo started; sleep 98765\n",
            parts.base
        ));
        let started = AtomicBool::new(false);
        let observer = |progress| {
            if matches!(progress, Progress::Log { text, .. } if text.contains("started")) {
                started.store(true, Ordering::SeqCst);
            }
        };
        let request = build.request();
        let running = engine.build(&request, Export::Keep, &observer);
        tokio::select! {
            ended = running => panic!("{ended:?}"),
            () = wait_for(&started) => {}
        }
        assert_gone("sleep\u{0}98765").await;
        assert_gone(parts.temporary.path().to_str().unwrap()).await;
        parts.assert_clean();

        // The store is whole, and the steps before are cached.
        let next = Build::new(&format!("FROM {} AS deps\nRUN touch /x\n", parts.base));
        let (_, told) = next.image(&engine).await;
        assert!(told.is_cached("touch /x"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_podman_that_does_not_end_by_itself_leaves_nothing() {
    for parts in [Parts::new(), Parts::trixie()] {
        // Nothing of a step runs while a registry does not answer, but the first stage has its
        // working container.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let build = Build::new(&format!(
            "FROM {}\nRUN echo started\nCOPY --from={address}/a/b:1 / /\n",
            parts.base
        ));
        let started = AtomicBool::new(false);
        let observer = |progress| {
            if matches!(progress, Progress::Log { text, .. } if text.contains("Trying to pull 127.0.0.1"))
            {
                started.store(true, Ordering::SeqCst);
            }
        };
        parts.say(&["pull", "--quiet", "--tls-verify=false", &parts.base]);
        let engine = parts.engine();
        let request = build.request();
        tokio::select! {
            ended = engine.build(&request, Export::Keep, &observer) => panic!("{ended:?}"),
            () = wait_for(&started) => {}
        }
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_stops_in_the_middle() {
    let parts = Parts::new();
    let build = Build::new(&format!(
        "FROM {}\nRUN echo started; sleep 87654\n",
        parts.base
    ));
    let told = Told::default();
    let engine = parts.engine();
    let running = build.run(&engine, &told);
    let kill = async {
        while !told.log().contains("started") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for process in processes(parts.temporary.path().to_str().unwrap()) {
            let pid = process.file_name().unwrap().to_str().unwrap();
            trilith_testkit::assert_success(
                std::process::Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]),
            );
        }
    };
    let (ended, ()) = tokio::join!(running, kill);
    let error = ended.unwrap_err();
    assert!(matches!(error, EngineError::Lost { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert_gone("sleep\u{0}87654").await;
    parts.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_podman_that_is_not_there() {
    let parts = Parts::new();
    let mut options = parts.options();
    options.program = "/nonexistent/podman".into();
    let engine = Podman::new(options, registry_client(Vec::new()));
    let error = engine.info().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "podman does not answer at `/nonexistent/podman`"
    );
    assert!(error.hint().unwrap().contains("trilith doctor"));

    let mut options = parts.options();
    options.environment.push((
        "CONTAINERS_STORAGE_CONF".to_owned(),
        Some("/nonexistent".to_owned()),
    ));
    options.environment.push((
        "CONTAINER_HOST".to_owned(),
        Some("unix:///nonexistent".to_owned()),
    ));
    let engine = Podman::new(options, registry_client(Vec::new()));
    let error = engine.info().await.unwrap_err();
    assert!(
        matches!(error, EngineError::Unreachable { .. }),
        "{error:?}"
    );
    assert_eq!(files(parts.temporary.path()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() {
    let parts = Parts::new();
    let mount = tempfile::tempdir().unwrap();
    let path = mount.path().to_str().unwrap();
    trilith_testkit::assert_success(
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none", path]),
    );
    let mut options = parts.options();
    options.temporary = mount.path().to_owned();
    let engine = Podman::new(options, registry_client(Vec::new()));
    let build = Build::new("FROM scratch\nCOPY . /\n");
    build.file("large", vec![1; 4 << 20]);
    let (error, _) = build.error(&engine).await;
    let left = files(mount.path());
    trilith_testkit::assert_success(std::process::Command::new("umount").arg(path));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("No space left on device"),
        "{error}: {source}"
    );
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_is_replaced_by_nothing() {
    let parts = Parts::new();
    let mut build = Build::new(&format!("FROM {} AS deps\nFROM deps\n", parts.base));
    let image = parts.registry.reference("acme/gone:1").parse().unwrap();
    build.named_contexts.push(NamedContext {
        stage: "deps".to_owned(),
        image,
    });
    let (error, _) = build.error(&parts.engine()).await;
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.to_string().contains("acme/gone:1"), "{error}");
}

pub(crate) async fn wait_for(flag: &AtomicBool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !flag.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline, "it did not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until no process with `text` in its command line is seen any more: one that was killed is
/// until the kernel has taken it down.
pub(crate) async fn assert_gone(text: &str) {
    for _ in 0..1000 {
        if processes(text).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the step goes on: {:?}", processes(text));
}

/// Returns the processes whose command lines have `text` in them, zombies apart.
pub(crate) fn processes(text: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| {
            let own = std::process::id().to_string();
            !path.ends_with(own)
                && std::fs::read(path.join("cmdline"))
                    .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
        })
        .collect()
}
