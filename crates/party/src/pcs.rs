//! Collateral fetched from Intel's provisioning service or a cache of it (PCS, PCCS, version 4).

use std::time::Duration;

use convelo_attest::{
    Answers, Collateral, CollateralError, MAXIMUM_COLLATERAL_BYTES, PlatformId, Tee,
    root_crl_address,
};
use convelo_untrusted::shown;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// Intel's own service, for those who ask for it; otherwise nothing is fetched from there.
pub const INTEL_PCS: &str = "https://api.trustedservices.intel.com/sgx/certification/v4";

/// The whole answer must arrive within this time.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The most bytes in the headers of an answer: an issuer chain, percent-encoded, has about 4 KiB.
const MAXIMUM_HEADER_BYTES: usize = 64 << 10;

/// Where to fetch collateral, and how patiently.
pub struct PcsClient {
    endpoints: Vec<String>,
    agent: Agent,
    tries: u64,
    pause: Duration,
}

/// TLS to web servers: certificates are checked against Mozilla's list of authorities or,
/// insecurely, not at all.
pub fn web_tls(insecure_any_certificate: bool) -> TlsConfig {
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::WebPki)
        .disable_verification(insecure_any_certificate)
        .unversioned_rustls_crypto_provider(convelo_channel::tls_provider())
        .build()
}

/// Why there is no collateral.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PcsError {
    /// Nothing was asked.
    #[error("no collateral service is named")]
    NoEndpoint,
    /// No endpoint gave a usable answer.
    #[error("no collateral for FMSPC {fmspc}: {}", .failures.join("; "))]
    Failed {
        /// The platform.
        fmspc: String,
        /// Why, endpoint by endpoint.
        failures: Vec<String>,
    },
}

/// Why one endpoint has no collateral.
enum Failure {
    /// Another attempt may help.
    Passing(String),
    /// Another attempt would end the same way.
    Final(String),
}

impl PcsClient {
    /// Asks these endpoints (in the form of `convelo_attest::collateral_endpoint`), in order. Each
    /// failed request is retried `retries` times, after a `pause` each time.
    ///
    /// `insecure_any_certificate` skips the verification of their TLS certificates: collateral is
    /// signed and cannot be forged, but newer collateral can be withheld.
    pub fn new(
        endpoints: Vec<String>,
        retries: u64,
        pause: Duration,
        insecure_any_certificate: bool,
    ) -> Self {
        let agent = Agent::config_builder()
            .tls_config(web_tls(insecure_any_certificate))
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .http_status_as_error(false)
            .max_response_header_size(MAXIMUM_HEADER_BYTES)
            .user_agent(concat!("convelo/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { endpoints, agent: Agent::new_with_config(agent), tries: retries + 1, pause }
    }

    /// Fetches the collateral of a platform; blocks. Verifies only its form.
    ///
    /// # Errors
    /// [`PcsError`], with the reason for every endpoint.
    pub fn fetch(&self, platform: &PlatformId) -> Result<Collateral, PcsError> {
        if self.endpoints.is_empty() {
            return Err(PcsError::NoEndpoint);
        }
        let mut failures = Vec::new();
        for endpoint in &self.endpoints {
            match self.fetch_from(endpoint, platform) {
                Ok(collateral) => return Ok(collateral),
                Err(Failure::Passing(why) | Failure::Final(why)) => {
                    tracing::info!(%endpoint, %why, "no collateral from here");
                    failures.push(format!("{endpoint}: {why}"));
                }
            }
        }
        Err(PcsError::Failed { fmspc: hex::encode(&platform.fmspc), failures })
    }

    fn fetch_from(&self, endpoint: &str, platform: &PlatformId) -> Result<Collateral, Failure> {
        let (fmspc, ca) = (hex::encode(&platform.fmspc), platform.ca.as_str());
        // Revocation lists belong to the platform; the rest exists once per technology.
        let facts = match platform.tee {
            Tee::Tdx => endpoint.replacen("/sgx/certification/", "/tdx/certification/", 1),
            _ => endpoint.to_owned(),
        };
        let tcb = self.get(&format!("{facts}/tcb?fmspc={fmspc}"), "TCB-Info-Issuer-Chain")?;
        let identity =
            self.get(&format!("{facts}/qe/identity"), "SGX-Enclave-Identity-Issuer-Chain")?;
        let crl = self
            .get(&format!("{endpoint}/pckcrl?ca={ca}&encoding=der"), "SGX-PCK-CRL-Issuer-Chain")?;
        let root = match self.get(&format!("{endpoint}/rootcacrl"), "") {
            Ok(root) => root,
            // Intel's own service has no such route: the root certificate itself says where its
            // list is.
            Err(passed) => match root_crl_address(&tcb.chain) {
                Some(address) if address.starts_with("https://") => self.get(&address, "")?,
                _ => return Err(passed),
            },
        };
        let text = |body: Vec<u8>| {
            String::from_utf8(body).map_err(|_| Failure::Final("the answer is not text".to_owned()))
        };
        let answers = Answers {
            tcb_info: text(tcb.body)?,
            tcb_info_issuer_chain: tcb.chain,
            qe_identity: text(identity.body)?,
            qe_identity_issuer_chain: identity.chain,
            pck_crl: crl.body,
            pck_crl_issuer_chain: crl.chain,
            root_ca_crl: root.body,
        };
        let collateral = Collateral::from_answers(&answers)
            .map_err(|error: CollateralError| Failure::Final(error.to_string()))?;
        if (collateral.tee(), collateral.fmspc()) != (platform.tee, platform.fmspc.as_slice()) {
            let (tee, fmspc) = (collateral.tee(), hex::encode(collateral.fmspc()));
            return Err(Failure::Final(format!("it answered for {tee} on FMSPC {fmspc}")));
        }
        Ok(collateral)
    }

    /// One answer, after as many attempts as are allowed.
    fn get(&self, url: &str, chain: &str) -> Result<Answered, Failure> {
        let mut tries = 1;
        loop {
            match self.try_get(url, chain) {
                Err(Failure::Passing(_)) if tries < self.tries => {
                    tries += 1;
                    std::thread::sleep(self.pause);
                }
                other => return other,
            }
        }
    }

    fn try_get(&self, url: &str, chain: &str) -> Result<Answered, Failure> {
        let route = url.rsplit_once("/v4/").map_or(url, |(_, route)| route);
        let route = route.split('?').next().unwrap_or(route);
        let passing = |why: String| Failure::Passing(format!("{route}: {why}"));
        let finally = |why: String| Failure::Final(format!("{route}: {why}"));
        let mut answer =
            self.agent.get(url).call().map_err(|error| passing(shown(&error.to_string())))?;
        let status = answer.status().as_u16();
        if status != 200 {
            let why = format!("status {status}, {}", advice(status));
            let again = matches!(status, 429 | 500 | 502 | 503 | 504);
            return Err(if again { passing(why) } else { finally(why) });
        }
        let chain = if chain.is_empty() {
            String::new()
        } else {
            let old = format!("SGX-{chain}");
            let headers = answer.headers();
            let value = headers.get(chain).or_else(|| headers.get(old.as_str()));
            let value = value.and_then(|value| value.to_str().ok());
            let value = value.ok_or_else(|| finally(format!("the header {chain} is missing")))?;
            percent_decoded(value)
                .ok_or_else(|| finally(format!("the header {chain} is damaged")))?
        };
        let length = answer.body().content_length();
        let body = answer
            .body_mut()
            .with_config()
            .limit(MAXIMUM_COLLATERAL_BYTES as u64)
            .read_to_vec()
            .map_err(|error| passing(shown(&error.to_string())))?;
        if length.is_some_and(|length| length != body.len() as u64) {
            return Err(passing("the answer ends too early".to_owned()));
        }
        Ok(Answered { body, chain })
    }
}

struct Answered {
    body: Vec<u8>,
    chain: String,
}

/// What a status of the interface means, and what to do (Intel SGX PCS API, version 4; PCCS).
fn advice(status: u16) -> &'static str {
    match status {
        400 => "it did not understand the request: is it a PCCS of version 4?",
        401 | 403 => "it refuses access: ask its operator for a subscription key or permission",
        404 => {
            "it has no collateral for this platform: register the platform, or ask another cache"
        }
        410 => "this version of the interface has ended: use an address with v4",
        413 | 429 => "it limits how often it may be asked: try later",
        460 => "the platform's registration failed its integrity check: register it again",
        461 => "the platform is unknown to Intel: register it",
        462 => "the platform's certificates are not available: register it again",
        500 | 502 | 503 | 504 => "it, or Intel's service behind it, is not available: try later",
        _ => "which the interface does not define",
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}
