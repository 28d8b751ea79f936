//! A registry that does not know, or does not say: nothing is taken for absent, nothing is pushed.

use trilith_testkit::{
    Fault, FaultProxy, ImageOptions, Registry, RegistryOptions, Rule, busybox_image,
};

use crate::support::{Trilith, assert_complete, path, project, recipe};

/// A registry behind a proxy, a base on it, and a project that is pushed through the proxy.
struct Scene {
    registry: Registry,
    proxy: FaultProxy,
    project: trilith_testkit::Project,
    trilith: Trilith,
}

impl Scene {
    fn new() -> Self {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let proxy = FaultProxy::start(registry.host());
        let project = project(&registry, "acme/app", &base.reference);
        let recipe = recipe(&proxy.reference("acme/app"), &proxy.reference("base:1"));
        project.write("trilith.toml", recipe);
        Self {
            registry,
            proxy,
            project,
            trilith: Trilith::new(),
        }
    }

    /// Builds while requests meet `rule`, which has to fail, and returns the message.
    fn failure(&self, rule: Rule) -> String {
        self.proxy.clear();
        self.proxy.forget_requests();
        self.proxy.add(rule);
        let error = self
            .trilith
            .error(1, &["build", "--push", "--project", path(&self.project)]);
        self.proxy.clear();
        error
    }

    fn pushed(&self) -> usize {
        let requests = self.proxy.requests();
        requests
            .iter()
            .filter(|r| matches!(r.method.as_str(), "PUT" | "POST" | "PATCH"))
            .count()
    }
}

#[test]
fn unknown_is_not_absent() {
    let scene = Scene::new();
    for (fault, said, retried) in [
        (Fault::status(500), "500", true),
        (Fault::status(429), "429", true),
        (Fault::status(503), "503", true),
        (Fault::status(401), "401", false),
        (Fault::status(403), "403", false),
    ] {
        let error = scene.failure(Rule::new("HEAD", "/v2/acme/app/manifests/", fault));
        assert!(error.contains(said), "{error}");
        assert!(
            error.contains("cannot tell whether the source image"),
            "{error}"
        );
        assert!(error.contains("hint: "), "{error}");
        assert_eq!(scene.pushed(), 0, "{said}");
        let heads = scene.proxy.requests();
        let heads = heads
            .iter()
            .filter(|r| r.path.contains("acme/app/manifests"))
            .count();
        assert_eq!(heads > 1, retried, "{said}: {heads} attempts");
    }
    assert_eq!(scene.registry.tags("acme/app"), Vec::<String>::new());
}

#[test]
fn silence_is_not_absence() {
    let scene = Scene::new();
    let error = scene.failure(Rule::new("HEAD", "/v2/acme/app/manifests/", Fault::Silence));
    assert!(
        error.contains("cannot tell whether the source image"),
        "{error}"
    );
    assert_eq!(scene.pushed(), 0);
}

#[test]
fn a_registry_that_is_not_there() {
    let trilith = Trilith::new();
    let project = trilith_testkit::Project::python();
    project.write("vendor/x", "");
    project.write("trilith.toml", recipe("127.0.0.1:1/acme/app", "scratch"));
    let error = trilith.error(1, &["build", "--push", "--project", path(&project)]);
    assert!(
        error.contains("127.0.0.1:1") && error.contains("refused"),
        "{error}"
    );
}

#[test]
fn a_passing_failure_is_got_over() {
    let scene = Scene::new();
    for (method, path) in [
        ("HEAD", "/v2/acme/"),
        ("POST", "/uploads"),
        ("PUT", "/uploads"),
        ("PUT", "/manifests/"),
    ] {
        scene
            .proxy
            .add(Rule::new(method, path, Fault::status(503)).times(1));
        scene.proxy.add(
            Rule::new(method, path, Fault::CutResponse(0))
                .after(1)
                .times(1),
        );
    }
    scene.trilith.push(&scene.project);
    assert_complete(&scene.registry, "acme/app");
}

#[test]
fn a_failed_push_moves_no_tag() {
    let scene = Scene::new();
    for rule in [
        Rule::new("PUT", "/uploads", Fault::status(500)),
        Rule::new("POST", "/uploads", Fault::status(403)),
        Rule::new("PUT", "/manifests/v1", Fault::status(500)),
        Rule::new("PUT", "/manifests/v1", Fault::status(500)).after(1),
    ] {
        scene.failure(rule);
        assert_complete(&scene.registry, "acme/app");
    }
    assert_eq!(scene.trilith.push(&scene.project)["action"], "build");
    assert_complete(&scene.registry, "acme/app");
}

#[test]
fn credentials_are_used_and_never_shown() {
    let auth = Some(("robot".to_owned(), "s3cr3t-passw0rd".to_owned()));
    let registry = Registry::start(RegistryOptions {
        auth,
        ..RegistryOptions::default()
    });
    let trilith = Trilith::new();
    let project = trilith_testkit::Project::python();
    project.write("vendor/x", "");
    project.write(
        "trilith.toml",
        recipe(&registry.reference("acme/app"), "scratch"),
    );
    let build = ["build", "--push", "--project", path(&project)];
    let error = trilith.error(1, &build);
    assert!(error.contains("401") && error.contains("login"), "{error}");

    // `robot:s3cr3t-passw0rd` in base 64.
    let config = |auth: &str| {
        let file = trilith.home().join(".docker/config.json");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let host = registry.host();
        std::fs::write(
            file,
            format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#),
        )
        .unwrap();
    };
    config("cm9ib3Q6d3JvbmctcGFzc3cwcmQ=");
    let error = trilith.error(1, &build);
    assert!(
        error.contains("401") && !error.contains("wrong-passw0rd"),
        "{error}"
    );
    config("cm9ib3Q6czNjcjN0LXBhc3N3MHJk");
    let output = trilith.run(&build);
    assert!(output.status.success());
    let said = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains("s3cr3t"));
}
