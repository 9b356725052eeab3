//! A service inside the test, of a kind that the program itself would not run.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use convelo_attest::QuoteSource;
use convelo_channel::Identity;
use convelo_service::{Config, Limits, Service};
use tokio::runtime::Runtime;

/// A service with the test's own quote source.
pub struct Hosted {
    /// `127.0.0.1:port`.
    pub address: String,
    _runtime: Runtime,
}

impl Hosted {
    /// Starts it.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn new(source: impl QuoteSource + 'static) -> Self {
        Self::start(source, false)
    }

    /// Starts it so that it accepts parties without a challenge.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn insecure_ratls_only(source: impl QuoteSource + 'static) -> Self {
        Self::start(source, true)
    }

    fn start(source: impl QuoteSource + 'static, insecure_ratls_only: bool) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let config = Config {
            listen: "127.0.0.1:0".to_owned(),
            identity: Identity::generate(),
            source: Arc::new(source),
            collateral: None,
            offer: None,
            provider_policy: None,
            admit: None,
            behind_balancer: false,
            insecure_simulated: true,
            memory: 1 << 20,
            limits: Limits::default(),
            reconnect_within: Duration::ZERO,
            insecure_ratls_only,
        };
        let service = runtime.block_on(Service::bind(config)).expect("a service");
        let address = service.address().to_string();
        runtime.spawn(service.run(pending()));
        Self { address, _runtime: runtime }
    }
}
