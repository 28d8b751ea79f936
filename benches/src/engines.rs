//! What Trilith adds to an engine's own work, and how fast build contexts are packed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use trilith_build::build_context::{ContextOptions, Dockerfile, create_build_context_tarball};
use trilith_core::StatCache;
use trilith_oci::layer::Compression;
use trilith_testkit::{Dockerd, ImageOptions, Project, assert_success, busybox_image};

use crate::Trilith;
use crate::measure::{Line, in_turn, noise, registry, text, time};

const RUNS: usize = 9;
const CONTEXT_FILES: usize = 5_000;
/// At which level `tarfile` compresses unless it is told another.
const PYTHON_DEFAULT: u32 = 9;

const DOCKERFILE: &str = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY vendor /opt/vendor\n\
    RUN cat /opt/vendor/* | sha256sum > /opt/sum\nCOPY app /opt/app\n\
    RUN cat /opt/app/* | sha256sum > /opt/sum2\n";

/// A Dockerfile built into the engine, its source changed each time, by Trilith and by the
/// engine's own client.
pub(crate) fn engine(trilith: &Trilith) -> Vec<Line> {
    let registry = registry();
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let docker = Dockerd::start();
    let project = Project::empty();
    project.write("Dockerfile", DOCKERFILE);
    project.write(
        "trilith.toml",
        format!(
            "[image]\nrepository = \"{}\"\nversion = \"1\"\nbase = \"{}\"\n\
             [dockerfile]\npath = \"Dockerfile\"\n",
            registry.reference("acme/app"),
            base.reference
        ),
    );
    project.write("vendor/ballast", noise(1, 1_000_000));
    let home = tempfile::tempdir().unwrap();
    let ours = |seed: u64| {
        project.write("app/ballast", noise(seed, 2_000_000));
        let mut command = Command::new(&trilith.binary);
        command
            .args(["build", "--builder", "docker", "--network", "none"])
            .args(["--load", "--quiet", "--project"])
            .arg(project.path())
            .env("HOME", home.path())
            .env("DOCKER_HOST", docker.host());
        time(&mut command)
    };
    let peer = |seed: u64| {
        project.write("app/ballast", noise(seed, 2_000_000));
        let mut command = docker.docker();
        command
            .args(["build", "--quiet", "--network", "none", "--build-arg"])
            .arg(format!("BASE_IMAGE={}", base.reference))
            .args(["--tag", "peer:1"])
            .arg(project.path())
            .env("DOCKER_BUILDKIT", "1");
        time(&mut command)
    };
    ours(1);
    peer(2);
    let (mut our_seed, mut peer_seed) = (1_000, 2_000);
    let (ours, peer) = in_turn(
        RUNS,
        || {
            our_seed += 1;
            ours(our_seed)
        },
        || {
            peer_seed += 1;
            peer(peer_seed)
        },
    );
    vec![Line::slower(
        "2 MB of source changed, `build --builder docker --load`, against `docker build`",
        ours,
        peer,
        "at most 1.05, or 100 ms",
    )]
}

/// A context of text packed with gzip, against Python's tarfile at the level that comes to the
/// same size.
pub(crate) fn context(_: &Trilith) -> Vec<Line> {
    let tree = tempfile::tempdir().unwrap();
    for number in 0..CONTEXT_FILES {
        let directory = tree.path().join(format!("package{}", number % 100));
        fs::create_dir_all(&directory).unwrap();
        let content = text(number as u64, 2_000 + number * 7919 % 20_000);
        fs::write(directory.join(format!("file{number}.py")), content).unwrap();
    }
    let dockerfile = tree.path().join("Dockerfile");
    fs::write(&dockerfile, "FROM scratch\nCOPY . /\n").unwrap();
    let output = tempfile::tempdir().unwrap();
    let (ours, theirs) = (output.path().join("ours"), output.path().join("theirs"));
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let pack = |level| pack(tree.path(), &dockerfile, &ours, level);
    let pack_with_python = |level| pack_with_python(tree.path(), &theirs, level);
    let ratio = || size(&ours) as f64 / size(&theirs) as f64;
    let line = |level, peer_level, why: &str| {
        let (taken, peer) = in_turn(5, || pack(level), || pack_with_python(peer_level));
        let what = format!(
            "context of {CONTEXT_FILES} files as tar.gz at level {level}, against Python's tarfile at level \
             {peer_level}: {why}; {:.2} times its size",
            ratio()
        );
        Line::faster(&what, taken, peer, "5 times")
    };
    let Compression::Gzip(default) = Compression::default() else {
        panic!("contexts are compressed by gzip");
    };
    pack_with_python(PYTHON_DEFAULT);
    let as_close = (1..=9).find(|&level| {
        pack(level);
        ratio() <= 1.05
    });
    pack(default);
    let nearest = (1..=9).min_by_key(|&level| {
        pack_with_python(level);
        size(&theirs).abs_diff(size(&ours))
    });
    vec![
        line(default, PYTHON_DEFAULT, "the defaults"),
        line(as_close.unwrap(), PYTHON_DEFAULT, "as small as its default"),
        line(default, nearest.unwrap(), "as small as our default"),
    ]
}

fn pack(tree: &Path, dockerfile: &Path, output: &Path, level: u32) -> Duration {
    let started = Instant::now();
    let dockerfile = Dockerfile::File(dockerfile.to_owned());
    let options = ContextOptions {
        compression: Compression::Gzip(level),
        ..ContextOptions::default()
    };
    let cache = StatCache::disabled();
    create_build_context_tarball(tree, &dockerfile, output, &options, &cache).unwrap();
    started.elapsed()
}

fn pack_with_python(tree: &Path, output: &Path, level: u32) -> Duration {
    let program = "import sys, tarfile, time\n\
        started = time.monotonic()\n\
        with tarfile.open(sys.argv[2], 'w:gz', compresslevel=int(sys.argv[3])) as tar:\n    \
        tar.add(sys.argv[1], '.')\n\
        print(time.monotonic() - started)";
    let mut command = Command::new("python3");
    command.args(["-c", program]).arg(tree).arg(output);
    let output = assert_success(command.arg(level.to_string()));
    let seconds = String::from_utf8_lossy(&output.stdout).trim().parse();
    Duration::from_secs_f64(seconds.unwrap())
}
