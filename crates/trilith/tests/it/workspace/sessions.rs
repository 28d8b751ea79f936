//! What is done with a workspace, whatever the engine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use trilith_testkit::{Format, Project, assert_success, debian_image, run};

use super::parts::{Engine, Start};
use crate::support::on;

on! {
    [docker_20, podman_4, podman_5]:
    scratch_needs_nothing_but_the_agent,
    a_real_debian_is_worked_in,
    an_image_with_the_agent_in_it_is_as_good,
    what_goes_wrong_is_said_and_nothing_stays,
    an_image_goes_with_its_workspace_if_it_came_with_it,
    an_interrupted_start_leaves_nothing,
}
on! {
    [docker_20, podman_4, podman_5, bridged_docker_20, bridged_docker_26, bridged_podman_5]:
    a_session_from_start_to_stop,
}

fn a_session_from_start_to_stop(start: Start) {
    let engine = &start();
    let started = engine.start(&["--name", "one", "--env", "GREETING=hello", &engine.base]);
    let id = started["id"].as_str().unwrap();
    assert_eq!(id.len(), 64);
    assert_eq!(started["name"], "one");
    assert_eq!(engine.containers(), [id]);
    assert!(
        started["url"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1:")
    );

    programs(engine, id);
    files(engine, id);
    secrecy(engine, id);

    let listed = engine.json(&["ps"]);
    assert_eq!(listed[0]["id"], id);
    assert_eq!(listed[0]["state"], "running");
    let log = engine.json(&["logs", "one"]);
    let log = format!("{}{}", log["stdout"], log["stderr"]);
    assert!(log.contains("listening on http://"), "{log}");

    engine.json(&["pause", &id[..12]]);
    assert_eq!(engine.json(&["ps"])[0]["state"], "paused");
    let output = engine.exec(id, &[], &["true"], b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the workspace `one` is paused"), "{said}");
    assert!(said.contains("`trilith resume one`"), "{said}");
    engine.json(&["resume", "one"]);
    let output = engine.exec(id, &[], &["true"], b"");
    assert_eq!(output.status.code(), Some(0));

    // It answers elsewhere, or was never away.
    engine.client(&["restart", "--time", "1", id]);
    let output = engine.exec(id, &[], &["cat", "/tmp/other"], b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    assert_eq!(engine.json(&["stop", &id[..12]])["stopped"][0], id);
    assert!(engine.containers().is_empty());
    assert!(
        engine
            .client(&["volume", "ls", "--quiet"])
            .trim()
            .is_empty()
    );
    let gone = run(&mut engine.command(&["exec", id, "--", "true"]));
    assert_eq!(gone.status.code(), Some(1));
}

/// Streams, exit codes and limits are those of the program.
fn programs(engine: &Engine, id: &str) {
    let shell = |script: &str, input: &[u8]| engine.exec(id, &[], &["sh", "-c", script], input);
    let output = shell("echo $GREETING; echo oops >&2; exit 7", b"");
    assert_eq!(output.stdout, b"hello\n");
    assert_eq!(output.stderr, b"oops\n");
    assert_eq!(output.status.code(), Some(7));

    let bytes: Vec<u8> = (0..=255_u8).cycle().take(3 << 20).collect();
    assert_eq!(engine.exec(id, &[], &["cat"], &bytes).stdout, bytes);

    let output = engine.exec(
        id,
        &["--cwd", "/etc", "--env", "A=b"],
        &["sh", "-c", "pwd; echo $A"],
        b"",
    );
    assert_eq!(output.stdout, b"/etc\nb\n");
    let output = engine.exec(id, &[], &["no-such-program"], b"");
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-program"));
    assert_eq!(shell("kill -9 $$", b"").status.code(), Some(137));

    // It ignores the wish to end, and so does what it has started.
    let stubborn = "trap '' TERM; sleep 3600 & echo $!; wait; sleep 3600";
    let output = engine.exec(id, &["--timeout", "0.5"], &["sh", "-c", stubborn], b"");
    assert_eq!(output.status.code(), Some(124), "{output:?}");
    let pid = String::from_utf8(output.stdout).unwrap();
    let alive = shell(&format!("kill -0 {}", pid.trim()), b"");
    assert_ne!(alive.status.code(), Some(0), "what it started still runs");

    // No capability, no new privilege.
    let status = String::from_utf8(shell("cat /proc/self/status", b"").stdout).unwrap();
    assert!(status.contains("CapBnd:\t0000000000000000"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

/// Files and directories go both ways.
fn files(engine: &Engine, id: &str) {
    let here = tempfile::tempdir().unwrap();
    let path = |name: &str| here.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir_all(here.path().join("tree/below")).unwrap();
    fs::write(here.path().join("tree/below/run"), "#!/bin/sh\necho ran\n").unwrap();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(here.path().join("tree/below/run"), mode).unwrap();
    std::os::unix::fs::symlink("below/run", here.path().join("tree/link")).unwrap();

    engine.json(&["cp", &path("tree"), &format!("{id}:/tmp")]);
    assert_eq!(
        engine.exec(id, &[], &["/tmp/tree/link"], b"").stdout,
        b"ran\n"
    );
    engine.json(&["cp", &path("tree/below/run"), "one:/tmp/other"]);
    assert_eq!(engine.exec(id, &[], &["/tmp/other"], b"").stdout, b"ran\n");
    engine.json(&["cp", "one:/tmp/tree", &path("back")]);
    let back = fs::read_to_string(here.path().join("back/link")).unwrap();
    assert_eq!(back, "#!/bin/sh\necho ran\n");
    engine.json(&["cp", "one:/tmp/other", here.path().to_str().unwrap()]);
    assert!(here.path().join("other").is_file());
    let missing = run(&mut engine.command(&["cp", "one:/no/such", &path("x")]));
    assert_eq!(missing.status.code(), Some(1));
    assert!(!here.path().join("x").exists());
}

/// The key is in one private file of this machine and nowhere else outside.
fn secrecy(engine: &Engine, id: &str) {
    let record = engine
        .trilith
        .home()
        .join(".local/state/trilith/workspaces");
    let record = record.join(format!("{id}.json"));
    assert_eq!(
        fs::metadata(&record).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    let key = record["key"].as_str().unwrap();
    assert_eq!(key.len(), 64);
    for arguments in [&["inspect", id][..], &["logs", id], &["ps", "--all"]] {
        assert!(!engine.client(arguments).contains(key), "{arguments:?}");
    }
    for arguments in [&["ps"][..], &["logs", id]] {
        assert!(
            !engine.json(arguments).to_string().contains(key),
            "{arguments:?}"
        );
    }
    // Of all processes; one may end meanwhile.
    let processes = "cat /proc/[0-9]*/cmdline 2>/dev/null; true";
    for (argv, known) in [
        (&["env"][..], "PATH="),
        (&["sh", "-c", processes], "/.trilith/agent"),
    ] {
        let output = engine.exec(id, &[], argv, b"");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(known) && !said.contains(key), "{argv:?}");
    }
}

fn scratch_needs_nothing_but_the_agent(start: Start) {
    let engine = &start();
    let started = engine.start(&["--read-only", "scratch"]);
    let id = started["id"].as_str().unwrap();
    let output = engine.exec(id, &[], &["/.trilith/agent", "--version"], b"");
    assert!(output.stdout.starts_with(b"trilith-agent "), "{output:?}");
    assert_success(&mut engine.command(&["stop", id]));
    assert!(engine.containers().is_empty());
}

fn a_real_debian_is_worked_in(start: Start) {
    let engine = &start();
    let image = debian_image(&engine.registry, "debian:12", Format::Oci, false);
    let started = engine.start(&[&image.reference]);
    let id = started["id"].as_str().unwrap();
    let bash = |script: &str| engine.exec(id, &[], &["bash", "-c", script], b"");
    let script =
        "set -o pipefail; . /etc/os-release; echo $VERSION_CODENAME $LANG; false | tee /dev/stderr";
    let output = bash(script);
    assert_eq!(output.stdout, b"bookworm C.UTF-8\n", "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(bash("exit 42").status.code(), Some(42));
    // What it installs and what it knows of users work as ever.
    let known = bash("dpkg-query --show --showformat '${Status}\n' bash && getent passwd 0");
    let expected = b"install ok installed\nroot:x:0:0:root:/root:/bin/bash\n";
    assert_eq!(known.stdout, expected, "{known:?}");

    let here = tempfile::tempdir().unwrap();
    let path = |name: &str| here.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(here.path().join("src")).unwrap();
    fs::write(here.path().join("src/numbers"), "3\n1\n2\n").unwrap();
    engine.json(&["cp", &path("src"), &format!("{id}:/srv")]);
    let sorted = bash("cd /srv/src && sort numbers > sorted && ln -s sorted link");
    assert_eq!(sorted.status.code(), Some(0), "{sorted:?}");
    engine.json(&["cp", &format!("{id}:/srv/src"), &path("back")]);
    let back = fs::read_to_string(here.path().join("back/link")).unwrap();
    assert_eq!(back, "1\n2\n3\n");

    assert_eq!(engine.json(&["stop", id])["stopped"][0], id);
    assert!(engine.containers().is_empty());
}

fn an_image_with_the_agent_in_it_is_as_good(start: Start) {
    let engine = &start();
    let project = Project::python();
    let repository = engine.registry.reference("acme/agent");
    let recipe = format!(
        "[image]\nrepository = \"{repository}\"\nversion = \"1\"\nbase = \"{}\"\n\
         [agent]\ninject = true\n\
         [config]\nentrypoint = [\"/.trilith/agent\"]\nuser = \"1000:1000\"\n",
        engine.base
    );
    project.write("trilith.toml", recipe);
    let built = engine.trilith.push(&project);
    let image = built["reference"].as_str().unwrap();

    let started = engine.start(&[image]);
    let id = started["id"].as_str().unwrap();
    // By itself it runs what was put in, as a user that the base does not know.
    let version = engine.client(&["run", "--rm", "--network", "none", image, "--version"]);
    assert!(version.contains("trilith-agent "), "{version}");
    let output = engine.exec(id, &[], &["/.trilith/agent", "--version"], b"");
    assert!(
        version.contains(&*String::from_utf8_lossy(&output.stdout)),
        "{output:?}"
    );
    let listed = engine.exec(id, &[], &["ls", "-ln", "/.trilith"], b"");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files = listed.lines().filter(|line| line.starts_with("-r"));
    assert_eq!(files.count(), 2, "{listed}");
    assert_eq!(engine.exec(id, &[], &["id", "-u"], b"").stdout, b"1000\n");
    assert_success(&mut engine.command(&["stop", id]));
    assert!(engine.containers().is_empty());
}

fn what_goes_wrong_is_said_and_nothing_stays(start: Start) {
    let engine = &start();
    // Without a network that leads there, nobody hears the agent.
    let mut start = engine.lonely_command(&[&engine.base]);
    let start = start.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = start.spawn().unwrap();
    while !engine.logs_of_only_container().contains("listening on") {
        std::thread::sleep(Duration::from_millis(20));
    }
    engine.client(&["kill", &engine.containers()[0]]);
    let early = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&early.stderr).into_owned();
    assert_eq!(early.status.code(), Some(1), "{stderr}");
    assert!(early.stdout.is_empty());
    assert!(
        stderr.contains("ended before its agent answered: exit code 137"),
        "{stderr}"
    );
    assert!(stderr.contains("  | listening on http://"), "{stderr}");
    assert!(engine.containers().is_empty(), "{stderr}");

    let silent = run(&mut engine.lonely_command(&["--health-timeout", "0.5", &engine.base]));
    let stderr = String::from_utf8_lossy(&silent.stderr).into_owned();
    assert_eq!(silent.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("did not answer within"), "{stderr}");
    assert!(engine.containers().is_empty());

    for (arguments, code) in [
        (&["exec", "nobody", "--", "true"][..], 1),
        (&["stop", "nobody"], 1),
        (&["cp", "a", "b"], 2),
        (&["run", "--memory", "x", "scratch"], 2),
        (&["run", "--network", "none", "scratch"], 2),
        (
            &["run", "--network", "host", "--publish", "80", "scratch"],
            2,
        ),
        (&["run", "--publish", "0:80", "scratch"], 2),
    ] {
        let output = run(&mut engine.command(arguments));
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
    }
}

fn an_image_goes_with_its_workspace_if_it_came_with_it(start: Start) {
    let engine = &start();
    let images = || engine.client(&["images", "--quiet"]).trim().to_owned();
    let stop = |started: &serde_json::Value| {
        engine.json(&["stop", started["id"].as_str().unwrap()]);
    };
    let silent = ["--rm-image", "--health-timeout", "0.5", &engine.base];
    let silent = run(&mut engine.lonely_command(&silent));
    assert_eq!(silent.status.code(), Some(1));
    assert_eq!(images(), "");

    // The first brings it, the second has it already.
    let first = engine.start(&["--rm-image", &engine.base]);
    let second = engine.start(&["--rm-image", &engine.base]);
    stop(&second);
    assert_ne!(images(), "");
    stop(&first);
    assert_eq!(images(), "");

    // Another that runs needs it.
    let first = engine.start(&["--rm-image", &engine.base]);
    let second = engine.start(&[&engine.base]);
    stop(&first);
    assert!(images().lines().count() == 1);
    stop(&second);
    assert_ne!(images(), "");
}

fn an_interrupted_start_leaves_nothing(start: Start) {
    let engine = &start();
    // The image is there, so that it is the container that is interrupted.
    let first = engine.start(&[&engine.base]);
    let first = first["id"].as_str().unwrap();
    for milliseconds in [20, 120, 250, 400, 600] {
        let mut start = engine.start_command(&[&engine.base]);
        let mut child = start.stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        let pid = child.id().to_string();
        let _ended = run(std::process::Command::new("kill").args(["-INT", &pid]));
        if child.wait().unwrap().success() {
            // It was there before the signal.
            continue;
        }
        let known = engine.json(&["ps"]);
        let others = known.as_array().unwrap().iter();
        let ids: Vec<&str> = others.filter_map(|one| one["id"].as_str()).collect();
        assert!(ids.contains(&first));
        assert_eq!(ids.len(), engine.containers().len());
    }
    // One that this machine has forgotten is found by its label.
    fs::remove_dir_all(engine.trilith.home().join(".local/state/trilith")).unwrap();
    assert_success(&mut engine.command(&["stop", &first[..12]]));
    assert_success(&mut engine.command(&["stop", "--all"]));
    assert!(engine.containers().is_empty());
}
