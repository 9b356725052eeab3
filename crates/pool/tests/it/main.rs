//! Pools through the public interface: mailboxes, wires, and whole pools over real sockets.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod closing;
mod mailbox_model;
mod pool;
mod strangers;
mod wire_vectors;
