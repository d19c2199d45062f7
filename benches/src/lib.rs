//! What the demo and the benchmark of `mrcond` share.
//!
//! Both start the real daemon between real servers and look at it from outside only: through its
//! HTTP listener, its log, its exit code, `/proc`, and what arrives in the queue. The queue is
//! handled with a client that is not the daemon's, so that no mistake of ours can hide itself.

pub mod arguments;
pub mod broker;
pub mod daemon;
pub mod demo;
pub mod failure;
pub mod http;
mod listener;
pub mod orders;
pub mod output;
pub mod process;
pub mod publisher;
pub mod servers;
pub mod sockets;
pub mod stop;
pub mod tree;
pub mod truth;
pub mod workplace;
