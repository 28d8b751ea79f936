//! Same inputs, same tags and same digest, whoever builds, where, when and how.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use trilith_testkit::{
    ImageOptions, Project, Registry, RegistryOptions, assert_success, busybox_image,
};

use crate::support::{Trilith, path, project};

/// Returns the digest and the three tags of `project`, built by a machine of its own.
fn build(registry: &Registry, project: &Project) -> (String, Vec<String>) {
    let built = Trilith::new().json(&["build", "--push", "--force", "--project", path(project)]);
    assert!(
        registry
            .manifest("acme/app", built["digest"].as_str().unwrap())
            .is_some()
    );
    let tags = built["tags"].as_array().unwrap();
    let tags = tags
        .iter()
        .map(|tag| tag.as_str().unwrap().to_owned())
        .collect();
    (built["digest"].as_str().unwrap().to_owned(), tags)
}

#[test]
fn umask_time_order_and_place_do_not_show() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let original = project(&registry, "acme/app", &base.reference);
    original.write("app/é \u{1f980}.txt", "x");
    symlink("../outside", original.path().join("app/link")).unwrap();
    let expected = build(&registry, &original);

    // A checkout under another umask, later, with files made in another order.
    let other = Project::empty();
    let script = format!(
        "umask 077; cd {} && find . -type d | sort -r | while read -r d; do mkdir -p '{to}'/\"$d\"; done; \
         find . -type f | sort -r | while read -r f; do cat \"$f\" > '{to}'/\"$f\"; done; \
         cp -P app/link '{to}/app/link'; chmod u+x '{to}/app/run'; \
         find '{to}' -exec touch -h -d '2001-02-03' {{}} +",
        path(&original),
        to = path(&other),
    );
    assert_success(Command::new("sh").args(["-c", &script]));
    assert_eq!(build(&registry, &other), expected);

    // Another user and another process umask.
    let user = Trilith::new();
    std::fs::set_permissions(user.home(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let shared = Project::copy_of(original.path());
    assert_success(Command::new("chmod").args(["-R", "a+rX", path(&shared)]));
    let build_as_nobody = format!(
        "umask 002; exec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME={} {} \
         build --push --force --format json --project {}",
        user.home().display(),
        env!("CARGO_BIN_EXE_trilith"),
        path(&shared),
    );
    let output = assert_success(Command::new("sh").args(["-c", &build_as_nobody]));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["digest"], expected.0.as_str());
}

#[test]
fn what_a_build_starts_from_does_not_show() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let project = project(&registry, "acme/app", &base.reference);
    let trilith = Trilith::new();
    trilith.push(&project);
    project.write("app/main.py", "print('second')\n");
    let from_lock = trilith.push(&project);
    assert_eq!(from_lock["tags"].as_array().unwrap().len(), 1);
    let (from_base, _) = build(&registry, &project);
    assert_eq!(from_lock["digest"], from_base.as_str());
}

#[test]
fn whatever_changes_the_image_changes_the_hash() {
    let trilith = Trilith::new();
    let project = Project::python();
    symlink("main.py", project.path().join("app/link")).unwrap();
    let hash = || trilith.json(&["hash", path(&project)])["digest"].clone();
    let mut seen = vec![hash()];
    let mut changed = |what: &str| {
        let now = hash();
        assert!(!seen.contains(&now), "{what} does not show");
        seen.push(now);
    };
    project.set_mode("app/main.py", 0o755);
    changed("a mode bit");
    project.remove("app/link");
    symlink("run", project.path().join("app/link")).unwrap();
    changed("a link's target");
    project.write("app/empty", "");
    changed("an empty file");
    std::fs::rename(
        project.path().join("app/empty"),
        project.path().join("app/void"),
    )
    .unwrap();
    changed("a name");
    std::fs::create_dir(project.path().join("app/dir")).unwrap();
    changed("an empty directory");
    project.write("app/main.py", "print(\"hello from APP\")\n");
    changed("content of the same length");
}
