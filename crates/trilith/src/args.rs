//! The command line: what can be asked, and nothing of how it is done.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "the comments are help texts, where brackets mark what is optional"
)]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use trilith_core::{Level, Platform, Reference, Repository, Scheme, Strategy, Tag};
use trilith_workspace::Defaults;

use crate::quantity;

/// Agent runtime images from any base image, and never the same work twice.
#[derive(Debug, Parser)]
#[command(name = "trilith", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print for people, or as one JSON document on stdout
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) format: Format,
    /// Keep images and layers in this OCI layout [default: ~/.local/share/trilith/store]
    #[arg(long, global = true, env = "TRILITH_STORE", value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Speak plain HTTP to this registry; loopback registries need no flag
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub(crate) insecure_registry: Vec<String>,
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

// The flags of the one command that is run are all that is made, as making those of every command
// takes longer than the rest of a build that finds its image does.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Write a trilith.toml that fits the project
    Init(Init),
    /// Hash a directory as a scheme does
    Hash(Hash),
    /// Compute the three tags
    Tags(ProjectArgs),
    /// Tell what a build would do, and why
    Plan(Plan),
    /// Build the image, or find that it exists
    Build(Build),
    /// Build the images of many bases
    Batch(Batch),
    /// Tell why a build would happen: the inputs that differ from an image's
    Explain(Explain),
    /// Show an image: digest, platforms, layers, configuration, inputs
    Inspect(Inspect),
    /// Copy an image between registries, layouts, archives, engines and directories
    Copy(Copy),
    /// Put the layers of an image on another base, without a build
    Rebase(Rebase),
    /// Remove what the local store, or a repository, does not need any more
    Prune(Prune),
    /// Tell which engines answer, what each can do, and how to get the rest
    Doctor(Doctor),
    /// Start a workspace: a container of an image, with the agent in it
    Run(Run),
    /// Run a program in a workspace
    Exec(Exec),
    /// Copy files into a workspace or out of it
    Cp(Cp),
    /// Show what the container of a workspace has written
    Logs(Logs),
    /// List the workspaces
    Ps(Ps),
    /// End workspaces and remove them
    Stop(Stop),
    /// Freeze a workspace
    Pause(Workspace),
    /// Let a frozen workspace go on
    Resume(Workspace),
    /// Print what a shell needs to complete commands and flags
    Completions(Completions),
    /// Print the manual, or write a page for every command
    Man(Man),
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write the pages of all commands into this directory, which is made
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContainerEngine {
    Docker,
    Podman,
}

/// A time in seconds, which may have a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds: f64 = text.parse().map_err(|_| "it is no number of seconds")?;
        let duration = Duration::try_from_secs_f64(seconds);
        duration.map(Self).map_err(|_| "it is no time")
    }
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The image: a reference that the engine has or can fetch, or a place such as oci:PATH,
    /// docker-archive:PATH or scratch, which is loaded into it
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The engine [default: the first that answers]
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub(crate) engine: Option<ContainerEngine>,
    /// The name [default: one that is made up]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Remove the image with the workspace, unless the engine had it before
    #[arg(long)]
    pub(crate) rm_image: bool,
    /// Set a variable; without a value, to what it is here
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Mount a directory or a volume of the engine
    #[arg(long, short, value_name = "SOURCE:TARGET[:ro]")]
    pub(crate) volume: Vec<String>,
    /// Make another port reachable from this machine alone; on a free port if none is given
    #[arg(long, short, value_name = "[HOST_PORT:]PORT")]
    pub(crate) publish: Vec<String>,
    /// A network of the engine, or `host`
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// What the image must be for [default: the engine's own]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
    /// Give it GPUs
    #[arg(long, value_name = "all|COUNT")]
    pub(crate) gpus: Option<String>,
    /// Let nothing but /tmp and volumes be written to
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Give it a capability, as in CHOWN; without, it has none
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<String>,
    /// The most processes and threads
    #[arg(long, value_name = "COUNT", default_value_t = Defaults::PIDS)]
    pub(crate) pids: u32,
    /// The most memory, in bytes, or with k, m or g
    #[arg(long, value_name = "SIZE", default_value = "4g")]
    pub(crate) memory: String,
    /// How many seconds the agent may take to answer
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    pub(crate) health_timeout: Seconds,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The workspace: its id, the beginning of its id, or its name
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Give the program this terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Pass on what is typed in the terminal; without a terminal, standard input always is
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Set a variable; without a value, to what it is here
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// The directory [default: that of the image]
    #[arg(long, short = 'w', value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// End it, and all that it has started, after so many seconds; the exit code is then 124
    #[arg(long, value_name = "SECONDS", conflicts_with = "tty")]
    pub(crate) timeout: Option<Seconds>,
    /// The program and its arguments
    #[arg(value_name = "ARGV", required = true, last = true)]
    pub(crate) argv: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// A file or directory, or ID:PATH
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    /// Where to: into it where it is a directory, else under its name
    #[arg(value_name = "TO")]
    pub(crate) to: String,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The workspace: its id, the beginning of its id, or its name
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Wait for more until the workspace ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The last so many lines
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// The engine [default: all that answer]
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub(crate) engine: Option<ContainerEngine>,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The workspaces: ids, beginnings of ids, or names
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) ids: Vec<String>,
    /// All of them, on all engines that answer
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Workspace {
    /// The workspace: its id, the beginning of its id, or its name
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The project
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) project: PathBuf,
    /// Print the file instead of writing it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Overwrite a trilith.toml that exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Hash {
    /// The directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// How to hash: openhands-v0, openhands-v1 or trilith
    #[arg(long, default_value_t, value_name = "SCHEME")]
    pub(crate) scheme: Scheme,
    /// Leave out what matches this gitignore-style pattern; replaces the scheme's own list
    #[arg(long, value_name = "PATTERN")]
    pub(crate) ignore: Option<Vec<String>>,
}

/// The flags for what a preset decides by itself.
const PRESET_DECIDES: [&str; 10] = [
    "project",
    "scheme",
    "source",
    "lock_file",
    "ignore",
    "suffix",
    "layer",
    "inject_agent",
    "dockerfile",
    "template",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// The runtime image (V0)
    #[value(name = "openhands-v0")]
    OpenHandsV0,
    /// The agent server of the SDK (V1)
    #[value(name = "openhands-v1")]
    OpenHandsV1,
}

/// Takes the name of one of `levels`.
fn one_of<const N: usize>(levels: [Level; N]) -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(levels.map(Level::as_str)).try_map(|name| name.parse::<Level>())
}

/// What is built, each over what trilith.toml says.
#[derive(Debug, Args)]
#[command(next_help_heading = "Project (each overrides trilith.toml)")]
pub(crate) struct ProjectArgs {
    /// The project, with or without a trilith.toml
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub(crate) project: PathBuf,
    /// Build what the scripts of another project build of its checkout; trilith.toml is not read
    #[arg(long, value_enum, value_name = "PRESET", conflicts_with_all = PRESET_DECIDES)]
    pub(crate) preset: Option<Preset>,
    /// The checkout that the preset is of, or a directory in it [default: .]
    #[arg(long, value_name = "DIR", requires = "preset")]
    pub(crate) sdk_root: Option<PathBuf>,
    /// What the image is a variant of, told to the Dockerfile as `VARIANT` (preset openhands-v1)
    /// [default: python]
    #[arg(long, value_name = "NAME", requires = "preset")]
    pub(crate) variant: Option<String>,
    /// How inputs become tags: openhands-v0, openhands-v1 or trilith
    #[arg(long, value_name = "SCHEME")]
    pub(crate) scheme: Option<Scheme>,
    /// The base image: a reference, or a place such as oci:PATH, dir:PATH or scratch
    #[arg(long, alias = "base", value_name = "IMAGE")]
    pub(crate) base_image: Option<String>,
    /// Where the image is named, as registry/path
    #[arg(long, alias = "registry-prefix", value_name = "REPOSITORY")]
    pub(crate) repository: Option<Repository>,
    /// The version [default: from pyproject.toml, package.json or Cargo.toml]
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// A source directory; relative to the project
    #[arg(long, value_name = "DIR")]
    pub(crate) source: Vec<PathBuf>,
    /// A lock file, in the order given; relative to the project
    #[arg(long, value_name = "FILE")]
    pub(crate) lock_file: Vec<PathBuf>,
    /// Leave out what matches this gitignore-style pattern
    #[arg(long, value_name = "PATTERN")]
    pub(crate) ignore: Vec<String>,
    /// Append this to every tag, as in -dev
    #[arg(long, allow_hyphen_values = true, value_name = "SUFFIX")]
    pub(crate) suffix: Option<String>,
    /// Give the image this tag too
    #[arg(long, alias = "custom-tag", value_name = "TAG")]
    pub(crate) tag: Vec<Tag>,
    /// Do not write the tags of these levels; they are looked for all the same
    #[arg(long, value_parser = one_of([Level::Versioned, Level::Lock]), value_delimiter = ',',
          value_name = "LEVEL")]
    pub(crate) skip_tags: Vec<Level>,
    /// Hash as the reference does for an image without browser support (openhands schemes)
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// A platform to build for; several make an index
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Vec<Platform>,
    /// A layer, as LEVEL=COPY:TO[:UID:GID]; replaces those of trilith.toml
    #[arg(long, value_name = "LAYER")]
    pub(crate) layer: Vec<String>,
    /// Put the agent into the image, or with =false do not
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL")]
    pub(crate) inject_agent: Option<bool>,
    /// A Dockerfile that an engine builds; replaces the recipe of trilith.toml
    #[arg(long, value_name = "FILE", conflicts_with_all = ["template", "layer"])]
    pub(crate) dockerfile: Option<PathBuf>,
    /// A Jinja2 template of a Dockerfile; replaces the recipe of trilith.toml
    #[arg(long, value_name = "FILE", conflicts_with = "layer")]
    pub(crate) template: Option<PathBuf>,
    /// The stage to build of a Dockerfile without levels
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// A build argument; without a value, that of the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Extra dependencies: told to the template, or to the Dockerfile as `EXTRA_DEPS`
    #[arg(long, value_name = "TEXT")]
    pub(crate) extra_deps: Option<String>,
    /// Entry point: a JSON array, or one word
    #[arg(long, value_name = "ARGV")]
    pub(crate) entrypoint: Option<String>,
    /// Command: a JSON array, or one word
    #[arg(long, value_name = "ARGV")]
    pub(crate) cmd: Option<String>,
    /// Environment variable
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Label
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// User, as UID[:GID] or a name the base knows
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// Exposed port, as 8000 or 8000/udp
    #[arg(long, value_name = "PORT")]
    pub(crate) expose: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// Which existing images may be reused or built from
    #[arg(long, default_value_t, value_name = "STRATEGY")]
    pub(crate) cache_strategy: Strategy,
    /// Plan as if nothing existed
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    #[command(flatten)]
    pub(crate) options: BuildArgs,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also write the image to oci:PATH[:TAG], oci-archive:PATH, docker-archive:PATH,
    /// docker-daemon:REF or dir:PATH
    #[arg(long, value_name = "PLACE", conflicts_with = "push")]
    pub(crate) output: Option<String>,
    /// With --dry-run: write what an engine would be sent into this directory, one for each level
    #[arg(long = "build-folder", value_name = "DIR", requires = "dry_run")]
    pub(crate) folder: Option<PathBuf>,
}

/// How images are built.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Which existing images may be reused or built from: incremental, any, exact, lock,
    /// versioned or scratch
    #[arg(long, default_value_t, value_name = "STRATEGY")]
    pub(crate) cache_strategy: Strategy,
    /// Build from the base even if the image exists, and replace its tags
    #[arg(long)]
    pub(crate) force: bool,
    /// What builds the image
    #[arg(long, value_enum, default_value_t = Builder::Auto)]
    pub(crate) builder: Builder,
    /// Build into the registry that the repository names, instead of the local store
    #[arg(long)]
    pub(crate) push: bool,
    /// Compress new layers with this
    #[arg(long, value_enum, default_value_t = Compress::Gzip)]
    pub(crate) compression: Compress,
    /// How to show what happens: one live view, plain lines, or one JSON object per line
    #[arg(long, value_enum, default_value_t = ProgressFormat::Auto, value_name = "FORMAT")]
    pub(crate) progress: ProgressFormat,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Batch {
    #[command(subcommand)]
    pub(crate) command: Option<BatchCommand>,
    #[command(flatten)]
    pub(crate) run: BatchRun,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BatchCommand {
    /// Show what a batch did, as one page of HTML
    Report(BatchReport),
}

#[derive(Debug, Args)]
pub(crate) struct BatchReport {
    /// The manifest of the batch
    #[arg(value_name = "MANIFEST")]
    pub(crate) manifest: PathBuf,
    /// Write the page to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BatchRun {
    /// The base images: lines, JSON lines or CSV; - for stdin
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) bases: Option<PathBuf>,
    /// Variants of every image, as [[variant]] tables in TOML, or JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) matrix: Option<PathBuf>,
    /// Images at a time [default: 16, with an engine the number of cores]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Try an image again as often as this where that may help
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) retries: u32,
    /// Write a line for every image that is done with to this file
    #[arg(long, default_value = "trilith-batch.jsonl", value_name = "FILE")]
    pub(crate) manifest: PathBuf,
    /// Go on with the last run of the manifest
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    #[command(flatten)]
    pub(crate) options: BuildArgs,
}

/// What an engine is told. None of it is an input.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine (for Dockerfiles)")]
pub(crate) struct EngineArgs {
    /// Name the images in the engine; without --push they are kept nowhere else
    #[arg(long)]
    pub(crate) load: bool,
    /// A secret for RUN --mount=type=secret, as id=ID[,src=FILE] or id=ID,env=NAME
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Vec<String>,
    /// An SSH agent for RUN --mount=type=ssh, as default or ID=SOCKET
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub(crate) ssh: Vec<String>,
    /// A line of /etc/hosts for the steps
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(crate) add_host: Vec<String>,
    /// Which network the steps see
    #[arg(long, value_enum, default_value_t = StepNetwork::Default, value_name = "NETWORK")]
    pub(crate) network: StepNetwork,
    /// Where cached layers may come from: a reference, or type=TYPE,KEY=VALUE,...
    #[arg(long, value_name = "CACHE")]
    pub(crate) cache_from: Vec<String>,
    /// Where the cache is written to: a reference, or type=TYPE,KEY=VALUE,...
    #[arg(long, value_name = "CACHE")]
    pub(crate) cache_to: Vec<String>,
    /// Run every step anew
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Ask for base images again, even where the engine has them
    #[arg(long)]
    pub(crate) pull: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StepNetwork {
    /// What the engine gives them
    Default,
    None,
    /// That of the machine
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Builder {
    /// Graft for a recipe of layers, for a Dockerfile the first engine that answers
    Auto,
    /// Layers put on the base without an engine
    Graft,
    /// The Docker Engine
    Docker,
    /// Podman
    Podman,
    /// A buildkitd
    Buildkit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressFormat {
    /// A live view on a terminal, else plain lines
    Auto,
    Plain,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compress {
    Gzip,
    Zstd,
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The image to compare with [default: the last one built from this project]
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The image: a reference, or a place such as oci:PATH
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// The platform to show of a multi-platform image
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
    /// Print the manifest's own bytes
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// Where the image is
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    /// Where it goes
    #[arg(value_name = "TO")]
    pub(crate) to: String,
    /// Copy only this platform's image of an index
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Debug, Args)]
pub(crate) struct Rebase {
    /// The image whose layers are taken: a recipe of layers made it, and it is on a registry
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Reference,
    /// The base they are put on
    #[arg(long, value_name = "IMAGE")]
    pub(crate) new_base: Reference,
    /// An image in the repository of the old base [default: the new base]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) old_base: Option<Reference>,
    /// The tag of the result, in the repository of the image
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Tag,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove what was not used for this long, as in 12h, 7d or 4w
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(crate) older_than: Option<Duration>,
    /// Remove what was not used for longest, until the rest is no larger, as in 500MB or 10GB
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    pub(crate) keep_size: Option<u64>,
    /// Keep the images of this level: versioned, lock or source
    #[arg(long, value_parser = one_of(Level::ALL), value_name = "LEVEL")]
    pub(crate) keep_level: Vec<Level>,
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Prune this repository on its registry instead; without --yes nothing is removed
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) registry: Option<Repository>,
    /// With --registry: do remove
    #[arg(long, requires = "registry", conflicts_with = "dry_run")]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The project whose repository credentials are looked for
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub(crate) project: PathBuf,
    /// Look for credentials for this repository instead
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) repository: Option<Repository>,
}
