//! Attestation through the public interface: what is accepted, what is refused, and why.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod attacks;
mod conversions;
mod dynamic_config;
mod genuine;
mod kit;
mod offered;
mod policies;
mod source;
mod tdx;
