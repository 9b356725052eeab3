//! The platform: its certificates and keys, in memory and in a directory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use convelo_attest::{QuoteSource, Tee};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use crate::collateral::CollateralKnobs;
use crate::der;
use crate::domain::{SimulatedDomain, TrustDomain, domain_policy_toml};
use crate::enclave::{Enclave, SimulatedEnclave, policy_toml};
use crate::key::coordinates;

/// A simulated machine with SGX and TDX: everything Intel and the machine's maker would hold.
pub struct Platform {
    pub(crate) now: u64,
    tee: Tee,
    root: Authority,
    ca: Authority,
    pub(crate) tcb_signer: Signer,
    pub(crate) pck: Signer,
    pub(crate) attestation_key: KeyPair,
    pub(crate) quoting_enclave: Enclave,
    digest: [u8; 32],
}

/// Why a platform could not be made, written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the platform's directory could not be read or written.
    #[error("simulated platform: cannot {action} {path}: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `platform.json` is not in the form that [`Platform::create`] writes.
    #[error("simulated platform: {path} is damaged (line {line}): make a new platform")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// 1-based line; 0 if the fault is in a key or certificate inside.
        line: usize,
    },
    /// A certificate, revocation list or key could not be made.
    #[error("simulated platform: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A signature could not be converted to raw form.
    #[error("simulated platform: a signature is not ECDSA on P-256")]
    Signature,
    /// A quote source returned no quote.
    #[error("simulated platform: {0}")]
    Quote(#[from] convelo_attest::QuoteError),
    /// A time is outside the years that certificates can express.
    #[error("simulated platform: Unix second {0} is outside the years 1970 to 9999")]
    Time(i64),
}

/// A certificate authority: what it takes to issue under it.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) pem: String,
}

/// An end entity and its key.
pub(crate) struct Signer {
    pub(crate) key: KeyPair,
    pub(crate) pem: String,
}

/// How a platform differs from a good one. Differences in the quoting enclave are not written to a
/// platform's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformKnobs {
    /// Intel's registration service keeps the platform's root keys: refused by verifiers.
    pub cached_keys: bool,
    /// The PCK certificate has its SGX extension twice.
    pub repeated_sgx_extension: bool,
    /// What the quoting enclave claims to be.
    pub quoting_enclave: Enclave,
}

impl Default for PlatformKnobs {
    fn default() -> Self {
        Self {
            cached_keys: false,
            repeated_sgx_extension: false,
            quoting_enclave: Enclave::quoting(),
        }
    }
}

impl Platform {
    /// Makes a platform with fresh keys. Its certificates are valid from a year before `now` (Unix
    /// seconds) to seven years after it.
    pub fn new(now: u64) -> Result<Self, Error> {
        Self::with_knobs(now, &PlatformKnobs::default())
    }

    /// Makes a platform with these oddities.
    pub fn with_knobs(now: u64, knobs: &PlatformKnobs) -> Result<Self, Error> {
        let keys = [
            KeyPair::generate()?,
            KeyPair::generate()?,
            KeyPair::generate()?,
            KeyPair::generate()?,
            KeyPair::generate()?,
        ];
        let [root_key, ca_key, tcb_key, pck_key, attestation_key] = keys;
        let root_params = params(ROOT, now)?;
        let root_pem = root_params.self_signed(&root_key)?.pem();
        let root_issuer = Issuer::from_params(&root_params, &root_key);
        let ca_params = params(CA, now)?;
        let ca_pem = ca_params.signed_by(&ca_key, &root_issuer)?.pem();
        let tcb_pem = params(TCB_SIGNER, now)?.signed_by(&tcb_key, &root_issuer)?.pem();
        let ca_issuer = Issuer::from_params(&ca_params, &ca_key);
        let mut pck_params = params(PCK, now)?;
        let extension = CustomExtension::from_oid_content(
            &[1, 2, 840, 113_741, 1, 13, 1],
            sgx_extension(knobs),
        );
        let times = if knobs.repeated_sgx_extension { 2 } else { 1 };
        pck_params.custom_extensions = vec![extension; times];
        let pck_pem = pck_params.signed_by(&pck_key, &ca_issuer)?.pem();
        let platform = Self::assemble(File {
            now,
            tee: Technology::Sgx,
            root: Stored::new(&root_key, root_pem),
            ca: Stored::new(&ca_key, ca_pem),
            tcb_signer: Stored::new(&tcb_key, tcb_pem),
            pck: Stored::new(&pck_key, pck_pem),
            attestation_key: attestation_key.serialize_pem(),
        })?;
        Ok(Self { quoting_enclave: knobs.quoting_enclave.clone(), ..platform })
    }

    /// Makes a platform and writes it to `dir`, which is created: `root.pem` (the root, for
    /// policies), `collateral.json` (for verifiers) and `platform.json` (with the private keys,
    /// mode 0600). Does not overwrite an existing platform.
    ///
    /// `tee` is the technology of what runs on it; nothing else about the platform depends on it.
    pub fn create(dir: &Path, now: u64, tee: Tee) -> Result<Self, Error> {
        let platform = Self { tee, ..Self::new(now)? };
        fs::create_dir_all(dir).map_err(|source| file("create", dir, source))?;
        write(&dir.join(PLATFORM), platform.with_keys().as_bytes(), 0o600)?;
        write(&dir.join("root.pem"), platform.root_pem().as_bytes(), 0o644)?;
        let knobs = CollateralKnobs { tee, ..CollateralKnobs::default() };
        let collateral = platform.collateral(&knobs).to_json();
        write(&dir.join("collateral.json"), collateral.as_bytes(), 0o644)?;
        Ok(platform)
    }

    /// Reads the platform that [`create`](Self::create) wrote to `dir`.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(PLATFORM);
        let text = fs::read_to_string(&path).map_err(|source| file("read", &path, source))?;
        let stored: File = serde_json::from_str(&text)
            .map_err(|error| Error::Damaged { path: path.clone(), line: error.line() })?;
        Self::assemble(stored).map_err(|_| Error::Damaged { path, line: 0 })
    }

    /// The root certificate, PEM: what a policy names as `insecure_simulated_root`.
    pub fn root_pem(&self) -> &str {
        &self.root.pem
    }

    /// The technology of what [`program`](Self::program) runs.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// The stand-in for the program of this name, as an enclave or a trust domain.
    pub fn program(self: &Arc<Self>, name: &str) -> Arc<dyn QuoteSource> {
        match self.tee {
            Tee::Tdx => Arc::new(self.trust_domain(TrustDomain::named(name))),
            _ => Arc::new(self.enclave(Enclave::named(name))),
        }
    }

    /// The policy file that accepts the stand-in for the program of this name.
    pub fn program_policy(&self, name: &str) -> String {
        let label = format!("{name} (simulated)");
        match self.tee {
            Tee::Tdx => domain_policy_toml(self, &[(&label, &TrustDomain::named(name))]),
            _ => policy_toml(self, &[(&label, &Enclave::named(name))]),
        }
    }

    /// An enclave on this platform.
    pub fn enclave(self: &Arc<Self>, enclave: Enclave) -> SimulatedEnclave {
        SimulatedEnclave { platform: Arc::clone(self), enclave }
    }

    /// A trust domain on this platform.
    pub fn trust_domain(self: &Arc<Self>, domain: TrustDomain) -> SimulatedDomain {
        SimulatedDomain { platform: Arc::clone(self), domain }
    }

    /// The PCK certificate, its CA and the root, PEM: the chain in quotes.
    pub(crate) fn pck_chain(&self) -> String {
        [self.pck.pem.as_str(), &self.ca.pem, &self.root.pem].concat()
    }

    pub(crate) fn ca_chain(&self) -> String {
        [self.ca.pem.as_str(), &self.root.pem].concat()
    }

    /// The key of the authority that issues PCK certificates.
    pub(crate) fn ca_key(&self) -> &KeyPair {
        &self.ca.key
    }

    pub(crate) fn tcb_chain(&self) -> String {
        [self.tcb_signer.pem.as_str(), &self.root.pem].concat()
    }

    /// The root's revocation list, DER, with or without the PCK CA and the TCB signer.
    pub(crate) fn root_crl(
        &self,
        window: [i64; 2],
        number: u8,
        revoke_ca: bool,
        revoke_tcb_signer: bool,
    ) -> Result<Vec<u8>, Error> {
        self.root.crl(window, number, &[(revoke_ca, CA), (revoke_tcb_signer, TCB_SIGNER)])
    }

    /// The PCK CA's revocation list, DER, with or without the PCK certificate.
    pub(crate) fn pck_crl(
        &self,
        window: [i64; 2],
        number: u8,
        revoke_pck: bool,
    ) -> Result<Vec<u8>, Error> {
        self.ca.crl(window, number, &[(revoke_pck, PCK)])
    }

    /// A byte string that differs between platforms and reveals nothing about their keys.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    fn assemble(stored: File) -> Result<Self, Error> {
        let now = stored.now;
        let authority = |role, stored: Stored| -> Result<Authority, Error> {
            Ok(Authority {
                params: params(role, now)?,
                key: KeyPair::from_pem(&stored.key)?,
                pem: stored.certificate,
            })
        };
        let signer = |stored: Stored| -> Result<Signer, Error> {
            Ok(Signer { key: KeyPair::from_pem(&stored.key)?, pem: stored.certificate })
        };
        let attestation_key = KeyPair::from_pem(&stored.attestation_key)?;
        Ok(Self {
            now,
            tee: match stored.tee {
                Technology::Sgx => Tee::Sgx,
                Technology::Tdx => Tee::Tdx,
            },
            root: authority(ROOT, stored.root)?,
            ca: authority(CA, stored.ca)?,
            tcb_signer: signer(stored.tcb_signer)?,
            pck: signer(stored.pck)?,
            digest: Sha256::digest(coordinates(&attestation_key)).into(),
            attestation_key,
            quoting_enclave: Enclave::quoting(),
        })
    }

    /// The content of `platform.json`: certificates and private keys.
    fn with_keys(&self) -> String {
        let file = File {
            now: self.now,
            tee: match self.tee {
                Tee::Tdx => Technology::Tdx,
                _ => Technology::Sgx,
            },
            root: Stored::new(&self.root.key, self.root.pem.clone()),
            ca: Stored::new(&self.ca.key, self.ca.pem.clone()),
            tcb_signer: Stored::new(&self.tcb_signer.key, self.tcb_signer.pem.clone()),
            pck: Stored::new(&self.pck.key, self.pck.pem.clone()),
            attestation_key: self.attestation_key.serialize_pem(),
        };
        serde_json::to_string_pretty(&file).expect("strings and a number are always JSON")
    }
}

impl Authority {
    fn crl(
        &self,
        [issued, next]: [i64; 2],
        number: u8,
        revoked: &[(bool, Role)],
    ) -> Result<Vec<u8>, Error> {
        let list = CertificateRevocationListParams {
            this_update: time(issued)?,
            next_update: time(next)?,
            crl_number: SerialNumber::from_slice(&[number]),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .filter(|(revoke, _)| *revoke)
                .map(|(_, role)| {
                    Ok(RevokedCertParams {
                        serial_number: role.serial(),
                        revocation_time: time(issued)?,
                        reason_code: None,
                        invalidity_date: None,
                    })
                })
                .collect::<Result<_, Error>>()?,
            key_identifier_method: self.params.key_identifier_method.clone(),
        };
        let issuer = Issuer::from_params(&self.params, &self.key);
        Ok(list.signed_by(&issuer)?.der().to_vec())
    }
}

/// The facts that the PCK certificate states about the machine.
pub(crate) const CPU_SVN: [u8; 16] = [11, 11, 2, 2, 255, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0];
pub(crate) const PCE_SVN: u16 = 13;
/// Of its TDX module: security version 5, major version 1.
pub(crate) const TEE_TCB_SVN: [u8; 16] = [5, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
pub(crate) const PCE_ID: [u8; 2] = [0, 0];
pub(crate) const FMSPC: [u8; 6] = [0x00, 0x60, 0x6A, 0, 0, 0];

/// Unix seconds in the certificates' type.
pub(crate) fn time(seconds: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .filter(|time| (1970..=9999).contains(&time.year()))
        .ok_or(Error::Time(seconds))
}

const PLATFORM: &str = "platform.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    now: u64,
    #[serde(default)]
    tee: Technology,
    root: Stored,
    ca: Stored,
    tcb_signer: Stored,
    pck: Stored,
    attestation_key: String,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Technology {
    #[default]
    Sgx,
    Tdx,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    key: String,
    certificate: String,
}

impl Stored {
    fn new(key: &KeyPair, certificate: String) -> Self {
        Self { key: key.serialize_pem(), certificate }
    }
}

/// A place in the infrastructure.
#[derive(Clone, Copy)]
struct Role {
    name: &'static str,
    number: u8,
    path_length: Option<u8>,
}

const ROOT: Role = Role { name: "SIMULATED SGX Root CA", number: 1, path_length: Some(1) };
const CA: Role = Role { name: "SIMULATED SGX PCK Platform CA", number: 2, path_length: Some(0) };
const TCB_SIGNER: Role = Role { name: "SIMULATED SGX TCB Signing", number: 3, path_length: None };
const PCK: Role = Role { name: "SIMULATED SGX PCK Certificate", number: 4, path_length: None };

impl Role {
    fn serial(self) -> SerialNumber {
        SerialNumber::from_slice(&[0x51, self.number, 7, 7, 7])
    }
}

fn params(role: Role, now: u64) -> Result<CertificateParams, Error> {
    let now = time(i64::try_from(now).unwrap_or(i64::MAX))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in [
        (DnType::CommonName, role.name),
        (DnType::OrganizationName, "SIMULATED - NOT INTEL"),
        (DnType::CountryName, "XX"),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.not_before = now - Duration::days(365);
    params.not_after = now + Duration::days(7 * 365);
    params.serial_number = Some(role.serial());
    params.use_authority_key_identifier_extension = true;
    params.crl_distribution_points =
        vec![CrlDistributionPoint { uris: vec!["https://simulated.invalid/crl.der".to_owned()] }];
    if let Some(length) = role.path_length {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    } else {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment];
    }
    Ok(params)
}

/// The SGX extension of a PCK certificate of the platform CA (Intel SGX PCK Certificate
/// specification, 1.3.5).
fn sgx_extension(knobs: &PlatformKnobs) -> Vec<u8> {
    let mut tcb: Vec<Vec<u8>> = (1..)
        .zip(CPU_SVN)
        .map(|(index, svn)| field(&[2, index], der::integer(svn.into())))
        .collect();
    tcb.push(field(&[2, 17], der::integer(PCE_SVN)));
    tcb.push(field(&[2, 18], der::octets(&CPU_SVN)));
    let configuration = [
        field(&[7, 1], der::boolean(true)),
        field(&[7, 2], der::boolean(knobs.cached_keys)),
        field(&[7, 3], der::boolean(true)),
    ];
    der::sequence(&[
        field(&[1], der::octets(&[0xA1; 16])),
        field(&[2], der::sequence(&tcb)),
        field(&[3], der::octets(&PCE_ID)),
        field(&[4], der::octets(&FMSPC)),
        field(&[5], der::enumerated(1)),
        field(&[6], der::octets(&[0x17; 16])),
        field(&[7], der::sequence(&configuration)),
    ])
}

/// SEQUENCE { OID 1.2.840.113741.1.13.1.`arcs`, value }.
fn field(arcs: &[u8], value: Vec<u8>) -> Vec<u8> {
    const SGX: [u8; 9] = [0x2A, 0x86, 0x48, 0x86, 0xF8, 0x4D, 0x01, 0x0D, 0x01];
    let oid = der::element(0x06, &[SGX.as_slice(), arcs].concat());
    der::sequence(&[oid, value])
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|source| file("write", path, source))
}

fn file(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { action, path: path.to_owned(), source }
}
