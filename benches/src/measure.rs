//! Timing and peak memory of whole commands, and how they are told.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use trilith_testkit::{Registry, RegistryOptions};

/// One line of a benchmark's table.
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) ours: String,
    pub(crate) peer: String,
    pub(crate) ratio: String,
    pub(crate) target: String,
}

impl Line {
    /// Compares two durations: how many times faster ours is.
    pub(crate) fn faster(what: &str, ours: Duration, peer: Duration, target: &str) -> Self {
        Self {
            what: what.to_owned(),
            ours: millis(ours),
            peer: millis(peer),
            ratio: format!(
                "{:.1} times faster",
                peer.as_secs_f64() / ours.as_secs_f64()
            ),
            target: target.to_owned(),
        }
    }

    /// Compares two durations: how many times as long ours is, and by how much longer.
    pub(crate) fn slower(what: &str, ours: Duration, peer: Duration, target: &str) -> Self {
        let ratio = ours.as_secs_f64() / peer.as_secs_f64();
        let added = (ours.as_secs_f64() - peer.as_secs_f64()) * 1000.0;
        Self {
            ratio: format!("{ratio:.2} times as long, {added:+.0} ms"),
            ..Self::faster(what, ours, peer, target)
        }
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

pub(crate) fn print_lines(lines: &[Line]) {
    println!("| what | Trilith | peer | ratio | target |\n| --- | --- | --- | --- | --- |");
    for Line {
        what,
        ours,
        peer,
        ratio,
        target,
    } in lines
    {
        println!("| {what} | {ours} | {peer} | {ratio} | {target} |");
    }
}

pub(crate) fn print_machine() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    println!(
        "machine: {cores} cores of {}, {} GiB of memory",
        model.map_or("an unnamed processor", |(_, name)| name),
        kilobytes.unwrap_or_default() >> 20
    );
}

/// Starts a registry that keeps what it knows of blobs in memory, as Debian's package configures it.
pub(crate) fn registry() -> Registry {
    registry_on(None)
}

/// As [`registry`], on a disk in memory of the given size where one is given.
pub(crate) fn registry_on(disk: Option<&'static str>) -> Registry {
    Registry::start(RegistryOptions {
        cache: true,
        disk,
        ..RegistryOptions::default()
    })
}

/// Returns the median time of `runs` runs of each, in turn, so that both meet the same weather.
pub(crate) fn in_turn(
    runs: usize,
    mut ours: impl FnMut() -> Duration,
    mut peer: impl FnMut() -> Duration,
) -> (Duration, Duration) {
    let (mut all_ours, mut all_peer): (Vec<_>, Vec<_>) =
        (0..runs).map(|_| (ours(), peer())).unzip();
    all_ours.sort();
    all_peer.sort();
    (all_ours[runs / 2], all_peer[runs / 2])
}

/// Returns how long `command` takes, which has to succeed.
pub(crate) fn time(command: &mut Command) -> Duration {
    let started = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the command starts");
    let taken = started.elapsed();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    taken
}

/// Returns how long `command` takes and its peak resident memory in bytes.
pub(crate) fn peak_memory(command: &mut Command) -> (Duration, u64) {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the command starts");
    let mut peak = 0;
    loop {
        // The kernel keeps the high-water mark itself, so only the last look counts.
        peak = peak.max(memory(child.id(), "VmHWM:").unwrap_or_default());
        if let Some(status) = child.try_wait().expect("the command can be waited for") {
            assert!(status.success(), "{command:?}");
            return (started.elapsed(), peak);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns a field of `/proc/PID/status` in bytes, as in `VmHWM:`; `None` when the process has ended.
pub(crate) fn memory(process: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = value.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Returns `count` bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(count.div_ceil(8))
    .flatten()
    .collect();
    bytes.truncate(count);
    bytes
}

/// Returns `count` bytes of what looks like source text, the same for the same seed.
pub(crate) fn text(seed: u64, count: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "def ",
        "return ",
        "self.",
        "import ",
        "    ",
        "(value, ",
        "= None",
        "if not ",
        "for item in ",
        ":\n",
        "\n",
        "result",
        "config[",
        "]",
        ")\n",
        "raise ValueError",
    ];
    let numbers = noise(seed, count);
    let mut bytes = Vec::with_capacity(count + 32);
    for pair in numbers.chunks_exact(2) {
        bytes.extend_from_slice(WORDS[usize::from(pair[0] % 16)].as_bytes());
        if pair[0] > 127 {
            bytes.extend_from_slice(format!("name_{}", pair[1]).as_bytes());
        }
        if bytes.len() >= count {
            break;
        }
    }
    bytes.truncate(count);
    bytes
}
