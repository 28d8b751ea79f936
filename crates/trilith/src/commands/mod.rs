//! One file for each command: its arguments in, its result out.

pub(crate) mod batch;
pub(crate) mod build;
pub(crate) mod completions;
pub(crate) mod copy;
pub(crate) mod cp;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod hash;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod pause;
pub(crate) mod plan;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod rebase;
pub(crate) mod run;
pub(crate) mod stop;
pub(crate) mod tags;
