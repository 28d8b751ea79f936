//! Workspaces on real engines: started, driven, stopped, and nothing left.

mod parts;
mod ports;
mod sessions;
mod terminal;
