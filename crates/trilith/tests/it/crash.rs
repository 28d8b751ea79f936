//! `kill -9` at any point: no tag ever points to an incomplete image, and the next run succeeds.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Instant;

use trilith_testkit::{ImageOptions, Registry, RegistryOptions, busybox_image};

use crate::support::{Trilith, assert_complete, path, project};

const ROUNDS: u32 = 50;

#[test]
fn killed_at_any_point_of_a_push() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    // Enough to be worth interrupting: 4 MB that do not compress.
    let noise = |seed: u32| -> Vec<u8> {
        let mut state = seed | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()
        };
        std::iter::repeat_with(next)
            .take(1 << 20)
            .flatten()
            .collect()
    };
    project.write("app/noise", noise(7));
    let started = Instant::now();
    trilith.push(&project);
    let whole = started.elapsed();

    let mut killed = 0;
    for round in 0..ROUNDS {
        // Lock and source change in turn, so that several tags are under way.
        let changed = if round % 2 == 0 {
            "app/noise"
        } else {
            "vendor/noise"
        };
        project.write(changed, noise(1000 + round));
        let mut child = trilith
            .command()
            .args(["build", "--push", "--quiet", "--project", path(&project)])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        sleep(whole * round / ROUNDS);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        assert_complete(&registry, "acme/app");
    }
    assert!(
        killed > ROUNDS / 4,
        "only {killed} of {ROUNDS} runs were cut short"
    );
    trilith.push(&project);
    assert_complete(&registry, "acme/app");
    let last = trilith.push(&project);
    assert_eq!(last["action"], "reuse");

    // What the dead left in the store is not in the way of those who come after.
    let store = trilith.json(&["build", "--project", path(&project)]);
    assert_eq!(store["digest"], last["digest"]);
}
