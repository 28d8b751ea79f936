//! Plans: what to do, given what exists.
//!
//! Nothing is looked up here. A [`Planner`] says which level it has to know about next, so
//! that nothing is asked in vain: where the source image exists, one question settles it. What
//! cannot be known ends the plan; it is never taken for absent.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::level::Level;

/// Which existing images may be reused or built from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Reuse the source image, else build from the lock image, the versioned image or the base.
    #[default]
    Incremental,
    /// Reuse the image of the most specific level that exists, else build from the base.
    Any,
    /// Reuse the source image, else build from the base.
    Exact,
    /// Reuse the source image, else build from the lock image or the base.
    Lock,
    /// Reuse the source image, else build from the versioned image or the base.
    Versioned,
    /// Build from the base.
    Scratch,
}

impl Strategy {
    /// All strategies.
    pub const ALL: [Self; 6] = [
        Self::Incremental,
        Self::Any,
        Self::Exact,
        Self::Lock,
        Self::Versioned,
        Self::Scratch,
    ];

    /// Returns the name used on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incremental => "incremental",
            Self::Any => "any",
            Self::Exact => "exact",
            Self::Lock => "lock",
            Self::Versioned => "versioned",
            Self::Scratch => "scratch",
        }
    }

    /// Returns the levels whose image serves, in the order in which they are asked about, each
    /// with what it serves for.
    fn candidates(self) -> &'static [(Level, Use)] {
        const SOURCE: (Level, Use) = (Level::Source, Use::Answer);
        const LOCK: (Level, Use) = (Level::Lock, Use::Base);
        const VERSIONED: (Level, Use) = (Level::Versioned, Use::Base);
        match self {
            Self::Incremental => &[SOURCE, LOCK, VERSIONED],
            Self::Any => &[
                SOURCE,
                (Level::Lock, Use::Answer),
                (Level::Versioned, Use::Answer),
            ],
            Self::Exact => &[SOURCE],
            Self::Lock => &[SOURCE, LOCK],
            Self::Versioned => &[SOURCE, VERSIONED],
            Self::Scratch => &[],
        }
    }
}

/// What an image that exists is good for.
#[derive(Clone, Copy)]
enum Use {
    /// It is what was wanted.
    Answer,
    /// The missing levels are put on it.
    Base,
}

/// The text names no [`Strategy`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a strategy; there are `incremental`, `any`, `exact`, `lock`, `versioned` and `scratch`"
)]
pub struct StrategyError(String);

impl FromStr for Strategy {
    type Err = StrategyError;

    fn from_str(text: &str) -> Result<Self, StrategyError> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.as_str() == text)
            .ok_or_else(|| StrategyError(text.to_owned()))
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether the image of a level exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existence {
    /// The tag is there and points to this image.
    Present(Digest),
    /// The tag is there, but its image is not of these inputs. It is neither reused nor built
    /// from, and a build overwrites it.
    Stale {
        /// What the tag points to.
        digest: Digest,
        /// What differs, as in "its source key is `…`".
        reason: String,
    },
    /// The tag is not there, for sure.
    Absent,
    /// Nobody could say: a timeout, 401, 429, 5xx. Holds what happened.
    Unknown(String),
}

/// What to build from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildFrom {
    /// The base image.
    Base,
    /// The existing image of a level.
    Level(Level, Digest),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: an image that exists is the answer.
    Reuse {
        /// Its level.
        level: Level,
        /// Its digest.
        digest: Digest,
    },
    /// Build the source image.
    Build {
        /// What to build from.
        from: BuildFrom,
    },
}

/// What to do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub action: Action,
    /// The levels whose tags are written, in order of writing. The versioned tag is written by
    /// builds from the base only, else layers would pile up under it.
    pub tags_to_write: Vec<Level>,
    /// Why, a sentence for each step of the reasoning.
    pub reasons: Vec<String>,
    /// What was found about the levels that were asked about.
    pub existence: BTreeMap<Level, Existence>,
}

/// How to plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// Which existing images may serve.
    pub strategy: Strategy,
    /// Build from the base as if nothing existed, whatever the strategy.
    pub force: bool,
}

/// What a [`Planner`] needs, or its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Whether the image of this level exists has to be known.
    Ask(Level),
    /// All is known that matters.
    Done(Plan),
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot tell whether the {level} image `{reference}` exists: {reason}")]
pub struct PlanError {
    /// The level that is not known.
    pub level: Level,
    /// The name its image has or would have.
    pub reference: String,
    /// What happened.
    pub reason: String,
}

impl PlanError {
    /// Returns what to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(
            "an image that may exist is not built again; try once more, check the credentials, or plan with strategy `scratch`, which asks nothing"
                .to_owned(),
        )
    }
}

/// Makes a plan from answers that come in one by one.
///
/// ```
/// use trilith_core::{Action, Existence, Level, PlanOptions, Planner, Step};
/// # fn main() -> Result<(), trilith_core::PlanError> {
/// let mut planner = Planner::new(PlanOptions::default(), |level| format!("acme/app:{level}"));
/// let plan = loop {
///     match planner.step()? {
///         Step::Ask(level) => planner.answer(level, Existence::Absent),
///         Step::Done(plan) => break plan,
///     }
/// };
/// assert_eq!(plan.tags_to_write, Level::ALL);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Planner {
    options: PlanOptions,
    /// What the image of each level is called, in the order of [`Level::ALL`].
    references: [String; 3],
    known: BTreeMap<Level, Existence>,
}

impl Planner {
    /// Returns a planner that knows nothing yet. `reference` names the image of a level in
    /// reasons and errors.
    #[must_use]
    pub fn new(options: PlanOptions, reference: impl FnMut(Level) -> String) -> Self {
        Self {
            options,
            references: Level::ALL.map(reference),
            known: BTreeMap::new(),
        }
    }

    /// Takes in whether the image of `level` exists.
    pub fn answer(&mut self, level: Level, existence: Existence) {
        self.known.insert(level, existence);
    }

    /// Returns the next question, or the plan.
    ///
    /// # Errors
    /// [`PlanError`] when a level that matters is known to be unknown.
    pub fn step(&self) -> Result<Step, PlanError> {
        let Self {
            options: PlanOptions { strategy, force },
            references: _,
            known,
        } = self;
        if *force {
            return Ok(Step::Done(
                self.build_from_base(vec!["reuse was ruled out by force".to_owned()]),
            ));
        }
        let mut reasons = Vec::new();
        for &(level, good_for) in strategy.candidates() {
            let reference = self.reference(level);
            match known.get(&level) {
                None => return Ok(Step::Ask(level)),
                Some(Existence::Unknown(reason)) => {
                    return Err(PlanError {
                        level,
                        reference: reference.to_owned(),
                        reason: reason.clone(),
                    });
                }
                Some(Existence::Present(digest)) => {
                    reasons.push(format!("the {level} image `{reference}` exists"));
                    return Ok(Step::Done(self.serve(level, good_for, digest, reasons)));
                }
                Some(Existence::Absent) => {
                    reasons.push(format!("the {level} image `{reference}` does not exist"));
                }
                Some(Existence::Stale { reason, .. }) => reasons.push(format!(
                    "`{reference}` exists, but is not the {level} image of these inputs: {reason}"
                )),
            }
        }
        if reasons.is_empty() {
            reasons.push(format!("strategy `{strategy}` uses no image that exists"));
        }
        Ok(Step::Done(self.build_from_base(reasons)))
    }

    fn reference(&self, level: Level) -> &str {
        &self.references[level as usize]
    }

    fn serve(
        &self,
        level: Level,
        good_for: Use,
        digest: &Digest,
        mut reasons: Vec<String>,
    ) -> Plan {
        let digest = digest.clone();
        let (action, tags_to_write) = match good_for {
            Use::Answer => {
                reasons.push(format!(
                    "it is reused, as strategy `{}` asks",
                    self.options.strategy
                ));
                (Action::Reuse { level, digest }, Vec::new())
            }
            Use::Base => {
                reasons.push("the levels above are built on it".to_owned());
                let above = Level::ALL.into_iter().filter(|&l| l > level).collect();
                let from = BuildFrom::Level(level, digest);
                (Action::Build { from }, above)
            }
        };
        self.plan(action, tags_to_write, reasons)
    }

    fn build_from_base(&self, mut reasons: Vec<String>) -> Plan {
        reasons.push("all levels are built from the base image".to_owned());
        let from = BuildFrom::Base;
        self.plan(Action::Build { from }, Level::ALL.to_vec(), reasons)
    }

    fn plan(&self, action: Action, tags_to_write: Vec<Level>, reasons: Vec<String>) -> Plan {
        Plan {
            action,
            tags_to_write,
            reasons,
            existence: self.known.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Level = Level::Source;
    const L: Level = Level::Lock;
    const V: Level = Level::Versioned;

    fn existence(letter: char, level: Level) -> Existence {
        match letter {
            'p' => Existence::Present(Digest::of(level.as_str().as_bytes())),
            'a' => Existence::Absent,
            's' => Existence::Stale {
                digest: Digest::of(b"stale"),
                reason: "its key differs".to_owned(),
            },
            _ => Existence::Unknown("timeout".to_owned()),
        }
    }

    /// Runs a planner against a world of three letters, for source, lock and versioned.
    /// Returns the levels it asked about and what came of it.
    fn run(options: PlanOptions, world: &str) -> (Vec<Level>, Result<Plan, PlanError>) {
        let mut planner = Planner::new(options, |level| format!("r:{level}"));
        let mut asked = Vec::new();
        loop {
            match planner.step() {
                Ok(Step::Ask(level)) => {
                    asked.push(level);
                    let index = [S, L, V].iter().position(|&l| l == level).unwrap();
                    let letter = world.chars().nth(index).unwrap();
                    planner.answer(level, existence(letter, level));
                }
                Ok(Step::Done(plan)) => return (asked, Ok(plan)),
                Err(error) => return (asked, Err(error)),
            }
        }
    }

    /// `use L` reuses lock, `on L` builds on it, `base` builds from the base, `? L` is stuck.
    fn outcome(result: &Result<Plan, PlanError>) -> String {
        match result {
            Err(error) => format!("? {}", error.level),
            Ok(plan) => match &plan.action {
                Action::Reuse { level, digest } => {
                    assert_eq!(*digest, Digest::of(level.as_str().as_bytes()));
                    assert!(plan.tags_to_write.is_empty());
                    format!("use {level}")
                }
                Action::Build {
                    from: BuildFrom::Base,
                } => {
                    assert_eq!(plan.tags_to_write, [V, L, S]);
                    "base".to_owned()
                }
                Action::Build {
                    from: BuildFrom::Level(level, digest),
                } => {
                    assert_eq!(*digest, Digest::of(level.as_str().as_bytes()));
                    let above: &[Level] = if *level == L { &[S] } else { &[L, S] };
                    assert_eq!(plan.tags_to_write, above);
                    format!("on {level}")
                }
            },
        }
    }

    /// What a strategy is expected to do, written independently of how it does it: the levels
    /// it may look at, and whether lower ones are answers.
    fn expected(strategy: Strategy, world: &str) -> (Vec<Level>, String) {
        let (looks_at, lower) = match strategy {
            Strategy::Incremental => ("SLV", "on"),
            Strategy::Any => ("SLV", "use"),
            Strategy::Exact => ("S", ""),
            Strategy::Lock => ("SL", "on"),
            Strategy::Versioned => ("SV", "on"),
            Strategy::Scratch => ("", ""),
        };
        let mut asked = Vec::new();
        for (letter, (level, name)) in world.chars().zip([(S, 'S'), (L, 'L'), (V, 'V')]) {
            if !looks_at.contains(name) {
                continue;
            }
            asked.push(level);
            match letter {
                'p' if level == S => return (asked, "use source".to_owned()),
                'p' => return (asked, format!("{lower} {level}")),
                'u' => return (asked, format!("? {level}")),
                _ => {}
            }
        }
        (asked, "base".to_owned())
    }

    #[test]
    fn every_strategy_in_every_world() {
        for strategy in Strategy::ALL {
            for n in 0..64 {
                let letter = |shift: usize| ['p', 'a', 's', 'u'][n >> shift & 3];
                let world: String = [letter(4), letter(2), letter(0)].iter().collect();
                let (asked, result) = run(
                    PlanOptions {
                        strategy,
                        force: false,
                    },
                    &world,
                );
                let (should_ask, should_be) = expected(strategy, &world);
                assert_eq!(asked, should_ask, "{strategy} in {world}");
                assert_eq!(outcome(&result), should_be, "{strategy} in {world}");
                if let Ok(plan) = result {
                    assert_eq!(plan.existence.len(), asked.len());
                    assert!(plan.reasons.len() > 1 || asked.is_empty());
                }
            }
        }
    }

    #[test]
    fn telling_examples() {
        for (strategy, world, outcome_expected) in [
            (Strategy::Incremental, "puu", "use source"),
            (Strategy::Incremental, "apu", "on lock"),
            (Strategy::Incremental, "aap", "on versioned"),
            (Strategy::Incremental, "ssp", "on versioned"),
            (Strategy::Incremental, "aua", "? lock"),
            (Strategy::Any, "aap", "use versioned"),
            (Strategy::Any, "spa", "use lock"),
            (Strategy::Exact, "auu", "base"),
            (Strategy::Lock, "aap", "base"),
            (Strategy::Versioned, "aup", "on versioned"),
            (Strategy::Scratch, "uuu", "base"),
        ] {
            let (_, result) = run(
                PlanOptions {
                    strategy,
                    force: false,
                },
                world,
            );
            assert_eq!(outcome(&result), outcome_expected, "{strategy} in {world}");
        }
    }

    #[test]
    fn force_asks_nothing_and_builds_from_the_base() {
        for strategy in Strategy::ALL {
            let (asked, result) = run(
                PlanOptions {
                    strategy,
                    force: true,
                },
                "ppp",
            );
            assert!(asked.is_empty());
            assert_eq!(outcome(&result), "base");
        }
    }

    #[test]
    fn unknown_names_level_reference_and_reason() {
        let (_, result) = run(PlanOptions::default(), "sua");
        let error = result.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot tell whether the lock image `r:lock` exists: timeout"
        );
        assert!(error.hint().unwrap().contains("try once more"));
    }

    #[test]
    fn reasons_are_sentences() {
        let (_, result) = run(PlanOptions::default(), "spa");
        assert_eq!(
            result.unwrap().reasons,
            [
                "`r:source` exists, but is not the source image of these inputs: its key differs",
                "the lock image `r:lock` exists",
                "the levels above are built on it",
            ]
        );
    }

    #[test]
    fn strategies_round_trip() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.to_string().parse::<Strategy>().unwrap(), strategy);
        }
        assert!("Any".parse::<Strategy>().is_err());
    }
}
