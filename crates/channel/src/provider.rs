//! The one TLS provider, passed explicitly everywhere.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// aws-lc-rs, which prefers the hybrid post-quantum key exchange X25519MLKEM768.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
