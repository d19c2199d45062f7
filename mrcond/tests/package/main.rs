//! What is shipped around the daemon: the unit and what it relies on, the chart, the Compose file, the
//! Debian package. Needs no servers; the checkers come from `dev/services.py`.
//!
//! What needs a release build is checked by `make release` and `make deb`.

mod chart;
mod compose;
mod debian;
mod licences;
mod manager;
mod tools;
mod unit;
mod values;
