//! One suite that every workspace passes, on real engines, and what each has for itself.

#![allow(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod containers;
mod local;
