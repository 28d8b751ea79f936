//! What `podman build` writes, told as [`Progress`].
//!
//! Podman mixes its own lines with what the steps write, so a step can write what looks like one
//! of Podman's. A line is taken for the beginning of a step only where that step is the next
//! one; nothing but what is shown depends on it. However much is written, only the end of it is kept.

use std::collections::{BTreeMap, VecDeque};

use super::super::redact::Redactor;
use super::super::{Observer, Progress};

/// Lines that are told of a step that failed.
const TAIL: usize = 50;
/// Lines that are kept: what Podman says at last comes after them.
const KEPT: usize = 2 * TAIL;
/// Bytes of a line that are looked at together. The rest of a longer one comes in pieces.
const LINE: usize = 4096;

/// Reads the output of a build and tells an observer.
pub(super) struct BuildOutput<'o> {
    observer: Observer<'o>,
    redactor: Redactor,
    /// What came after the last end of a line.
    line: Vec<u8>,
    /// Whether the beginning of this line was told already.
    within: bool,
    /// The step that runs.
    running: Option<Running>,
    /// How many steps began.
    steps: u64,
    /// The last step that Podman announced.
    last: Option<Place>,
    /// The names of the stages, by number.
    stages: BTreeMap<u64, String>,
    committed: bool,
    tail: VecDeque<String>,
}

/// A step that runs.
#[derive(Clone, Debug, Default)]
struct Running {
    number: u64,
    title: String,
    instruction: String,
    /// Whether nothing had to be run so far.
    cached: bool,
}

/// Which step of which stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// From 1; `None` where there is one stage only.
    stage: Option<u64>,
    step: u64,
    steps: u64,
}

/// How a build ended that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// The step that ran: its title, and its instruction as Podman quotes it.
    pub(super) step: Option<(String, String)>,
    /// What Podman says at last, after `Error: `.
    pub(super) message: String,
    /// The last lines before.
    pub(super) log: Vec<String>,
}

impl<'o> BuildOutput<'o> {
    pub(super) fn new(observer: Observer<'o>, redactor: Redactor) -> Self {
        Self {
            observer,
            redactor,
            line: Vec::new(),
            within: false,
            running: None,
            steps: 0,
            last: None,
            stages: BTreeMap::new(),
            committed: false,
            tail: VecDeque::new(),
        }
    }

    /// Takes what was written, cut anywhere.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || piece.ends_with(b"\r") {
                self.take_line(self.line.len());
            }
            while self.line.len() > LINE {
                self.take_line(whole_characters(&self.line[..LINE]));
            }
        }
    }

    /// Announces a step that is not one of the Dockerfile's.
    pub(super) fn begin(&mut self, title: String) {
        self.begin_step(title, String::new(), false);
    }

    /// Ends the step that runs.
    pub(super) fn end(&mut self, error: Option<&str>) {
        if let Some(step) = self.running.take() {
            (self.observer)(Progress::Finished {
                step: step.number,
                cached: step.cached && error.is_none(),
                error: error.map(|error| self.redactor.clean(error)),
            });
        }
    }

    /// Takes note of the end of a build that succeeded.
    pub(super) fn finish(&mut self) {
        self.take_line(self.line.len());
        self.end(None);
    }

    /// Takes note of the end of a build that failed.
    pub(super) fn fail(&mut self) -> Failed {
        self.take_line(self.line.len());
        let is_error = |line: &String| line.starts_with("Error: ");
        let at = self.tail.iter().rposition(is_error);
        let message: Vec<String> = at.map_or_else(Vec::new, |at| self.tail.split_off(at).into());
        let message = message.join("\n");
        let message = message.trim_start_matches("Error: ").trim_end().to_owned();
        let running = self.running.as_ref();
        let step = running.map(|step| (step.title.clone(), step.instruction.clone()));
        self.end(Some(if message.is_empty() {
            "it was stopped"
        } else {
            &message
        }));
        Failed {
            step,
            message,
            log: self
                .tail
                .drain(self.tail.len().saturating_sub(TAIL)..)
                .collect(),
        }
    }

    fn take_line(&mut self, length: usize) {
        if length == 0 {
            return;
        }
        let rest = self.line.split_off(length);
        let line = std::mem::replace(&mut self.line, rest);
        let within = std::mem::replace(&mut self.within, !line.ends_with(b"\n"));
        let text = String::from_utf8_lossy(&line);
        if within || !self.is_podmans(text.trim_end()) {
            self.log(&self.redactor.clean(&text), within);
        }
    }

    /// Returns whether a line is one of Podman's, and takes note of what it says.
    fn is_podmans(&mut self, line: &str) -> bool {
        if let Some((place, instruction)) =
            parse_step(line).filter(|(place, _)| self.is_next(*place))
        {
            self.last = Some(place);
            self.begin_instruction(place, instruction);
            return true;
        }
        let (_, rest) = split_stage(line);
        if rest == "COMMIT" && self.last.is_some_and(|last| last.step == last.steps) {
            self.end(None);
            self.begin_step(line.to_owned(), String::new(), false);
            self.committed = true;
            return true;
        }
        let Some(said) = line.strip_prefix("--> ") else {
            return self.committed && line.len() == 64 && is_hex(line);
        };
        if said.starts_with("Using cache ") || said.starts_with("Cache pulled from remote ") {
            if let Some(step) = &mut self.running {
                step.cached = true;
            }
            return true;
        }
        is_hex(said)
    }

    fn is_next(&self, place: Place) -> bool {
        let Some(last) = self.last else {
            return place.step == 1;
        };
        if place.step == 1 {
            place.stage > last.stage
        } else {
            // The triggers of a base image are added after its `FROM`.
            let steps = place.steps == last.steps || last.step == 1 && place.steps > last.steps;
            steps && (place.stage, place.step) == (last.stage, last.step + 1)
        }
    }

    fn begin_instruction(&mut self, place: Place, instruction: &str) {
        let words: Vec<&str> = instruction.split_whitespace().collect();
        let is_from = words
            .first()
            .is_some_and(|word| word.eq_ignore_ascii_case("FROM"));
        let stage = place.stage.unwrap_or(1);
        if let ([.., r#as, name], true) = (&words[..], is_from)
            && r#as.eq_ignore_ascii_case("AS")
        {
            self.stages.insert(stage, (*name).to_owned());
        }
        let name = match (self.stages.get(&stage), place.stage) {
            (Some(name), _) => format!("{name} "),
            // Docker counts stages from 0.
            (None, Some(stage)) => format!("stage-{} ", stage - 1),
            (None, None) => String::new(),
        };
        let title = format!("[{name}{}/{}] {instruction}", place.step, place.steps);
        let title = self.redactor.clean(&title);
        self.end(None);
        // A base image that is there needs no work; `log` learns of one that is not.
        self.begin_step(title, instruction.to_owned(), is_from);
    }

    fn begin_step(&mut self, title: String, instruction: String, cached: bool) {
        self.tail.clear();
        let number = self.steps;
        self.steps += 1;
        (self.observer)(Progress::Started {
            step: number,
            title: title.clone(),
        });
        self.running = Some(Running {
            number,
            title,
            instruction,
            cached,
        });
    }

    fn log(&mut self, text: &str, within: bool) {
        if let Some(step) = &mut self.running {
            step.cached &= !text.starts_with("Trying to pull ");
        }
        let line = text.trim_end_matches(['\n', '\r']);
        match self.tail.back_mut() {
            // No line grows without end.
            Some(last) if within && last.len() < LINE => last.push_str(line),
            Some(_) if within => {}
            _ => self.tail.push_back(line.to_owned()),
        }
        if self.tail.len() > KEPT {
            self.tail.pop_front();
        }
        (self.observer)(Progress::Log {
            step: self.running.as_ref().map(|step| step.number),
            text: text.to_owned(),
        });
    }
}

/// Parses `STEP 2/5: RUN …`, or `[1/2] STEP 2/5: RUN …` where there are several stages.
fn parse_step(line: &str) -> Option<(Place, &str)> {
    let (stage, rest) = split_stage(line);
    let (numbers, instruction) = rest.strip_prefix("STEP ")?.split_once(": ")?;
    let (step, steps) = parse_numbers(numbers)?;
    let place = Place { stage, step, steps };
    Some((place, instruction))
}

/// Splits `[1/2] ` off a line.
fn split_stage(line: &str) -> (Option<u64>, &str) {
    let stage = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .and_then(|(numbers, rest)| Some((parse_numbers(numbers)?.0, rest)));
    match stage {
        Some((stage, rest)) if stage > 0 => (Some(stage), rest),
        _ => (None, line),
    }
}

fn parse_numbers(text: &str) -> Option<(u64, u64)> {
    let (number, of) = text.split_once('/')?;
    Some((number.parse().ok()?, of.parse().ok()?))
}

fn is_hex(text: &str) -> bool {
    text.len() >= 11 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns how much of `bytes` can be taken without cutting a character in two.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to().max(1),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Returns what is told of `text`, as one line each, whatever pieces it comes in.
    fn told(text: &str, size: usize) -> (Vec<String>, Failed) {
        let told = Mutex::new(Vec::<String>::new());
        let observer = |progress: Progress| {
            told.lock().unwrap().push(match progress {
                Progress::Started { step, title } => format!("{step} start {title}"),
                Progress::Log { step, text } => {
                    format!("{} log {text:?}", step.map_or(-1, u64::cast_signed))
                }
                Progress::Finished {
                    step,
                    cached,
                    error,
                } => {
                    format!("{step} end cached={cached} {}", error.unwrap_or_default())
                }
                Progress::Bytes { .. } => unreachable!(),
            });
        };
        let redactor = Redactor::default();
        redactor.hide("hunter2");
        let mut output = BuildOutput::new(&observer, redactor);
        for piece in text.as_bytes().chunks(size) {
            output.push(piece);
        }
        let failed = output.fail();
        (told.into_inner().unwrap(), failed)
    }

    const BUILD: &str = "\
[1/2] STEP 1/2: FROM localhost/base:1 AS deps
[1/2] STEP 2/2: RUN echo hello hunter2
--> Using cache 79608f9b060916bb034cddf0389013fb314cce6860c14b319d404091c6a2102c
--> 79608f9b060
[2/2] STEP 1/3: FROM 127.0.0.1:5000/b
Trying to pull 127.0.0.1:5000/b...
[2/2] STEP 2/3: RUN something
STEP 1/9: FROM nothing
[2/2] STEP 9/3: RUN nothing
wärme hunter2\rno newline--> 98d195a3835
[2/2] STEP 3/3: RUN false
--> not ours
Error: building at STEP \"RUN false\": while running runtime: exit status 1
";

    #[test]
    fn a_failed_build_in_pieces() {
        for size in [1, 2, 3, 7, 100, 10_000] {
            let (told, failed) = told(BUILD, size);
            assert_eq!(
                told,
                [
                    "0 start [deps 1/2] FROM localhost/base:1 AS deps",
                    "0 end cached=true ",
                    "1 start [deps 2/2] RUN echo hello [redacted]",
                    "1 end cached=true ",
                    "2 start [stage-1 1/3] FROM 127.0.0.1:5000/b",
                    "2 log \"Trying to pull 127.0.0.1:5000/b...\\n\"",
                    "2 end cached=false ",
                    "3 start [stage-1 2/3] RUN something",
                    "3 log \"STEP 1/9: FROM nothing\\n\"",
                    "3 log \"[2/2] STEP 9/3: RUN nothing\\n\"",
                    "3 log \"wärme [redacted]\\r\"",
                    "3 log \"no newline--> 98d195a3835\\n\"",
                    "3 end cached=false ",
                    "4 start [stage-1 3/3] RUN false",
                    "4 log \"--> not ours\\n\"",
                    "4 log \"Error: building at STEP \\\"RUN false\\\": while running runtime: exit status 1\\n\"",
                    "4 end cached=false building at STEP \"RUN false\": while running runtime: exit status 1",
                ],
                "{size}"
            );
            assert_eq!(failed.step.unwrap().0, "[stage-1 3/3] RUN false");
            assert_eq!(failed.log, ["--> not ours"]);
        }
    }

    #[test]
    fn a_build_that_succeeds() {
        let text = "STEP 1/1: FROM a\nSTEP 2/2: RUN b\nCOMMIT\nout\nCOMMIT\n--> f9c23e94513\n\
            f9c23e9451335dd902b6b93dd808833d33142763146f2008bcaa5bd8f4ea1b07\n";
        let (told, failed) = told(text, 5);
        assert_eq!(
            told[..6],
            [
                "0 start [1/1] FROM a",
                "0 end cached=true ",
                "1 start [2/2] RUN b",
                "1 end cached=false ",
                "2 start COMMIT",
                "2 log \"out\\n\"",
            ]
        );
        assert_eq!((failed.message.as_str(), told.len()), ("", 9));
    }

    #[test]
    fn only_the_end_is_kept_however_long() {
        let lines: Vec<String> = (0..200).map(|number| format!("line {number}\n")).collect();
        let crabs = "\u{1F980}".repeat(100_000);
        let text = format!("STEP 1/1: RUN x\n{}{crabs}", lines.concat());
        let (told, failed) = told(&text, 8192);
        assert_eq!(failed.log.len(), TAIL);
        assert_eq!(failed.log[0], "line 151");
        assert!(failed.log[49].len() < 2 * LINE);
        assert!(!failed.log[49].contains('\u{fffd}'));
        assert!(told.iter().all(|line| line.len() < 2 * LINE));
    }
}
