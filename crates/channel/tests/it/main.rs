//! Connections through the public interface: real sockets, real TLS, and what attackers do to them.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod handshake;
mod peer_tls;
