//! Dockerfiles on real engines: three levels, what is built from what, and what is left behind.

mod ends;
mod flags;
mod injected;
mod levels;
mod outages;
mod parts;
mod places;
mod presets;
mod pull;
mod relay;
mod together;
