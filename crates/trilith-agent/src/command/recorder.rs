//! From what a command prints to events: pieces that end where a character does.
//!
//! A piece becomes an event when it is long enough or has waited long enough. Only so much of a
//! command is kept: what comes later is read, so that the command goes on, and counted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::memory::{killed, killed_since};
use crate::events::{Events, Output, Text};
use crate::id::Id;
use crate::spool::SpoolFailure;

/// How much makes an event, in bytes of one stream.
const PIECE: usize = 64 << 10;

/// How much is kept of a command, in bytes.
pub(crate) const KEPT: u64 = 128 << 20;

/// How long output waits for more; grows with the number of events, so that there are never many.
const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What is recorded of one command.
#[derive(Debug)]
pub(crate) struct Recorder {
    events: Arc<Events>,
    command: Id,
    order: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// When the first of what is pending came.
    since: Option<Instant>,
    lost: Option<Loss>,
    /// How many processes the kernel had killed for want of memory when the command began.
    killed: Option<u64>,
}

#[derive(Debug)]
struct Loss {
    reason: String,
    bytes: u64,
}

impl Recorder {
    pub(crate) fn new(events: Arc<Events>, command: Id) -> Self {
        Self {
            events,
            command,
            order: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
            since: None,
            lost: None,
            killed: killed(),
        }
    }

    pub(crate) fn command(&self) -> Id {
        self.command
    }

    /// Returns whether nothing is to be read because those who read the command are behind, now and later.
    pub(crate) fn is_held(&self) -> Option<watch::Receiver<bool>> {
        self.events.is_held(self.command)
    }

    /// Takes what was read.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let length = bytes.len() as u64;
        let pending = (self.stdout.len() + self.stderr.len()) as u64;
        if self.lost.is_none() && self.events.kept(self.command) + pending + length > KEPT {
            let reason = format!("more than {} MiB", KEPT >> 20);
            self.lost = Some(Loss { reason, bytes: 0 });
        }
        if let Some(loss) = &mut self.lost {
            loss.bytes += length;
            return;
        }
        match stream {
            Stream::Stdout => self.stdout.extend_from_slice(bytes),
            Stream::Stderr => self.stderr.extend_from_slice(bytes),
        }
        self.since.get_or_insert_with(Instant::now);
    }

    /// Returns whether there is enough for an event.
    pub(crate) fn is_full(&self) -> bool {
        self.stdout.len() >= PIECE || self.stderr.len() >= PIECE
    }

    /// Returns when what is pending is to be an event, if anything is.
    pub(crate) fn due(&self) -> Option<Instant> {
        let factor = u32::try_from(1 + self.order / 100).unwrap_or(u32::MAX);
        self.since
            .map(|since| since + PATIENCE.saturating_mul(factor))
    }

    /// Makes an event of what is pending, except for a character that is not complete.
    pub(crate) async fn seal(&mut self) -> io::Result<()> {
        let stdout = split_complete(&mut self.stdout);
        let stderr = split_complete(&mut self.stderr);
        self.since = None;
        self.add(stdout, stderr, None).await
    }

    /// Makes the last event: what is pending, the exit code, and what the agent has to say.
    pub(crate) async fn finish(mut self, exit_code: i32, note: Option<String>) -> io::Result<()> {
        let stdout = std::mem::take(&mut self.stdout);
        let stderr = std::mem::take(&mut self.stderr);
        self.add(stdout, stderr, Some((exit_code, note))).await
    }

    async fn add(
        &mut self,
        mut stdout: Vec<u8>,
        stderr: Vec<u8>,
        end: Option<(i32, Option<String>)>,
    ) -> io::Result<()> {
        let (out, err) = (stdout.len(), stderr.len());
        stdout.extend_from_slice(&stderr);
        let mut text = None;
        if !stdout.is_empty() {
            match self.events.keep(stdout).await {
                Ok(stored) => {
                    text = Some(Text {
                        stored,
                        stdout: out,
                        stderr: err,
                    });
                }
                Err(failure) => self.lose(&failure, (out + err) as u64),
            }
        }
        let (exit_code, note) = end.map_or((None, None), |(code, note)| (Some(code), note));
        if text.is_none() && exit_code.is_none() {
            return Ok(());
        }
        let note = exit_code.and_then(|code| self.notes(code, note));
        let (command, order) = (self.command, self.order);
        self.order += 1;
        self.events.add_output(Output {
            command,
            order,
            exit_code,
            text,
            note,
        })
    }

    /// Returns what there is to say at the end, a line each; what a caller has to know comes last.
    fn notes(&self, exit_code: i32, note: Option<String>) -> Option<String> {
        let memory = if exit_code == 0 {
            None
        } else {
            killed_since(self.killed)
        };
        let told = |loss: &Loss| format!("[{} bytes of output lost: {}]", loss.bytes, loss.reason);
        let lost = self.lost.as_ref().map(told);
        let notes: Vec<String> = [memory, lost, note].into_iter().flatten().collect();
        (!notes.is_empty()).then(|| notes.join("\n"))
    }

    /// Notes that bytes could not be kept; nothing is kept after them, so there are no gaps.
    fn lose(&mut self, failure: &SpoolFailure, bytes: u64) {
        let reason = match failure {
            SpoolFailure::Full => "no room for output is left".to_owned(),
            SpoolFailure::Io(error) => error.to_string(),
        };
        let loss = self.lost.get_or_insert(Loss { reason, bytes: 0 });
        loss.bytes += bytes;
    }
}

/// Takes off `bytes` what does not end within a character of UTF-8.
fn split_complete(bytes: &mut Vec<u8>) -> Vec<u8> {
    let rest = bytes.split_off(complete(bytes));
    std::mem::replace(bytes, rest)
}

/// Returns how many of `bytes` there are before a character that more bytes could complete.
fn complete(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        let needed = match bytes[at] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if needed > back { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_decode_as_the_whole(
            bytes in prop::collection::vec(prop_oneof![0x20..0x7f_u8, 0x80..0xff_u8], 0..40),
            text: String,
            cut in 0..60_usize,
        ) {
            for whole in [bytes, text.into_bytes()] {
                let (first, second) = whole.split_at(cut.min(whole.len()));
                let mut pending = first.to_vec();
                let mut decoded = String::from_utf8_lossy(&split_complete(&mut pending)).into_owned();
                pending.extend_from_slice(second);
                decoded.push_str(&String::from_utf8_lossy(&pending));
                prop_assert_eq!(decoded, String::from_utf8_lossy(&whole));
            }
        }
    }
}
