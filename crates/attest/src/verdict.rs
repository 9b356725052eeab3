//! What verification found.

use std::fmt;

use convelo_untrusted::shown;
use serde::Serialize;
use serde_json::json;

use crate::date;
use crate::measurements::Measurements;
use crate::policy::{self, TcbStatus};
use crate::quote::Tee;
use crate::refusal::{Matter, Refusal, Stage};

/// A check that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// What the evidence or the collateral said.
    pub found: String,
    /// What would have been accepted.
    pub expected: String,
}

/// Proof that a peer's key lives in an enclave that a policy accepts. Only
/// [`verify`](crate::verify()) can create one.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub(crate) simulated: bool,
    pub(crate) any_platform: bool,
    pub(crate) name: String,
    pub(crate) measurements: Box<Measurements>,
    pub(crate) tcb_status: TcbStatus,
    pub(crate) advisories: Vec<String>,
    pub(crate) root_key_id: Vec<u8>,
    pub(crate) fmspc: Vec<u8>,
    pub(crate) collateral_digest: [u8; 32],
    pub(crate) policy_digest: [u8; 32],
    pub(crate) spki: Vec<u8>,
    pub(crate) verified_at: u64,
    pub(crate) expires: u64,
    pub(crate) fresh: bool,
    pub(crate) checks: Vec<Check>,
}

impl Verdict {
    /// Whether the evidence comes from a simulated platform. Such evidence protects nothing, and
    /// anything that shows this verdict must say so.
    pub fn simulated(&self) -> bool {
        self.simulated
    }

    /// Whether the policy accepts any platform under its root, instead of naming some.
    pub fn any_platform(&self) -> bool {
        self.any_platform
    }

    /// This verdict, for evidence that another policy accepts as well.
    #[must_use]
    pub fn confirmed_by(self, other: &Self) -> Self {
        Self { any_platform: self.any_platform && other.any_platform, ..self }
    }

    /// Which platforms the policy accepts, in words.
    pub fn platforms_in_words(&self) -> &'static str {
        if self.any_platform {
            policy::any_platform(self.simulated)
        } else {
            "only those that the policy names"
        }
    }

    /// The policy's name for the enclave or trust domain.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which program it is, as reported by the hardware.
    pub fn measurements(&self) -> &Measurements {
        &self.measurements
    }

    /// The technology that isolates it from its host.
    pub fn tee(&self) -> Tee {
        match *self.measurements {
            Measurements::Sgx(_) => Tee::Sgx,
            Measurements::Tdx(_) => Tee::Tdx,
        }
    }

    /// The platform's converged TCB status.
    pub fn tcb_status(&self) -> TcbStatus {
        self.tcb_status
    }

    /// The Intel advisories that apply to the platform and that the policy accepts.
    pub fn advisories(&self) -> &[String] {
        &self.advisories
    }

    /// SHA-384 of the root's public key.
    pub fn root_key_id(&self) -> &[u8] {
        &self.root_key_id
    }

    /// SHA-256 of the collateral's JSON.
    pub fn collateral_digest(&self) -> &[u8; 32] {
        &self.collateral_digest
    }

    /// The peer's SubjectPublicKeyInfo, DER: the key that this verdict is about.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// When the verdict was given, in Unix seconds.
    pub fn verified_at(&self) -> u64 {
        self.verified_at
    }

    /// When this verdict stops being valid, in Unix seconds: as soon as the certificate or any part
    /// of the collateral expires, or the collateral exceeds its accepted age.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Turns this verdict on a quote over a [`Session`](crate::Session) into the fresh counterpart
    /// of `certificate`, the verdict on the same peer's certificate. Both must come from the same
    /// enclave.
    ///
    /// # Errors
    /// A refusal at [`Stage::Session`] if the enclave that answered is not the one in the
    /// certificate.
    pub fn fresh_after(mut self, certificate: &Self) -> Result<Self, Refusal> {
        if self.measurements != certificate.measurements || self.spki != certificate.spki {
            return Err(Refusal::new(Stage::Session, "another-enclave", Matter::Peer)
                .found(format!("a fresh quote of {}", self.measurements))
                .expected(format!(
                    "a quote of the certificate's enclave: {}",
                    certificate.measurements
                ))
                .advice(
                    "two enclaves share one key, or somebody is in the middle: refuse this peer",
                ));
        }
        self.expires = self.expires.min(certificate.expires);
        self.fresh = true;
        self.checks.push(Check {
            name: "freshness",
            found: "a quote over this connection's nonces, keys and job".to_owned(),
            expected: "the enclave of the certificate, at the other end of this connection, now"
                .to_owned(),
        });
        Ok(self)
    }

    /// Whether the enclave has answered on the connection itself. If not, the verdict rests on the
    /// certificate alone (RA-TLS): on a key that the enclave made at some unknown time.
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// All checks, in the order they were made.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The verdict for receipts and `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = json!({
            "simulated": self.simulated,
            "any_platform": self.any_platform,
            "tee": self.tee(),
            "enclave": self.name,
            "tcb_status": self.tcb_status,
            "advisories": self.advisories,
            "root_key_id": hex::encode(&self.root_key_id),
            "fmspc": hex::encode(&self.fmspc),
            "collateral_sha256": hex::encode(self.collateral_digest),
            "policy_sha256": hex::encode(self.policy_digest),
            "verified_at": date::show(self.verified_at),
            "expires": date::show(self.expires),
            "fresh": self.fresh,
            "checks": self.checks,
        });
        let object = value.as_object_mut().expect("an object was made just now");
        object.extend(self.measurements.to_json());
        value
    }

    /// The verdict in one line, for people.
    pub fn summary(&self) -> String {
        let fresh = if self.fresh { "" } else { ", NOT FRESH" };
        format!("{}{fresh}", self.brief())
    }

    /// Which program on which platform, in one line, for people.
    pub fn brief(&self) -> String {
        let platform = if self.simulated {
            "on a SIMULATED platform".to_owned()
        } else {
            let any = if self.any_platform { " (any Intel platform is accepted)" } else { "" };
            format!("on a genuine {} platform{any}", self.tee())
        };

        let advisories = match self.advisories.as_slice() {
            [] => String::new(),
            some => format!(", accepted advisories {}", some.join(" ")),
        };
        let measured = match &*self.measurements {
            Measurements::Sgx(sgx) => {
                format!("mr_enclave {}, svn {}", hex::encode(sgx.mr_enclave), sgx.isv_svn)
            }
            Measurements::Tdx(tdx) => format!("mr_td {}", hex::encode(tdx.mr_td)),
        };
        let (name, status) = (shown(&self.name), self.tcb_status);
        format!("{name} ({measured}) {platform}, TCB {status}{advisories}")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}
