//! Simulated enclaves and their quotes.

use std::sync::Arc;

use convelo_attest::{QuoteError, QuoteSource};
use sha2::{Digest, Sha256};

use crate::collateral::{QE_MR_SIGNER, QE_PROD_ID, QE_SVN};
use crate::key::{coordinates, sign_raw};
use crate::platform::{CPU_SVN, Error, PCE_SVN, Platform};

/// What a simulated enclave claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one bit of ATTRIBUTES")]
pub struct Enclave {
    /// The measurement.
    pub mr_enclave: [u8; 32],
    /// The signer.
    pub mr_signer: [u8; 32],
    /// The signer's product number.
    pub isv_prod_id: u16,
    /// The product's security version.
    pub isv_svn: u16,
    /// ATTRIBUTES.INIT, set in every real enclave.
    pub initialised: bool,
    /// ATTRIBUTES.DEBUG.
    pub debug: bool,
    /// ATTRIBUTES.MODE64BIT.
    pub mode64: bool,
    /// ATTRIBUTES.PROVISIONKEY.
    pub provision_key: bool,
    /// ATTRIBUTES.EINITTOKEN_KEY.
    pub einittoken_key: bool,
    /// ATTRIBUTES.XFRM.
    pub xfrm: u64,
    /// MISCSELECT.
    pub misc_select: u32,
    /// CONFIGID of key separation and sharing (KSS).
    pub config_id: [u8; 64],
    /// CONFIGSVN (KSS).
    pub config_svn: u16,
    /// ISVFAMILYID (KSS).
    pub isv_family_id: [u8; 16],
    /// ISVEXTPRODID (KSS).
    pub isv_ext_prod_id: [u8; 16],
}

impl Enclave {
    /// The stand-in for the program of this name: `mr_enclave` = SHA-256(`convelo simulated
    /// enclave` || name), `mr_signer` = SHA-256(`convelo simulated signer`). Fixed, so that a
    /// policy for a simulated run can be written in advance.
    pub fn named(name: &str) -> Self {
        Self {
            mr_enclave: Sha256::new()
                .chain_update("convelo simulated enclave")
                .chain_update(name)
                .finalize()
                .into(),
            mr_signer: Sha256::digest("convelo simulated signer").into(),
            isv_prod_id: 0,
            isv_svn: 0,
            initialised: true,
            debug: false,
            mode64: true,
            provision_key: false,
            einittoken_key: false,
            xfrm: 0xE7,
            misc_select: 0,
            config_id: [0; 64],
            config_svn: 0,
            isv_family_id: [0; 16],
            isv_ext_prod_id: [0; 16],
        }
    }

    /// The quoting enclave of a good platform.
    pub fn quoting() -> Self {
        Self {
            mr_enclave: [0x33; 32],
            mr_signer: QE_MR_SIGNER,
            isv_prod_id: QE_PROD_ID,
            isv_svn: QE_SVN,
            provision_key: true,
            ..Self::named("")
        }
    }

    fn flags(&self) -> u8 {
        [
            (self.initialised, 0x01),
            (self.debug, 0x02),
            (self.mode64, 0x04),
            (self.provision_key, 0x10),
            (self.einittoken_key, 0x20),
        ]
        .into_iter()
        .filter_map(|(set, bit)| set.then_some(bit))
        .sum()
    }
}

impl Default for Enclave {
    /// The enclave with an empty name.
    fn default() -> Self {
        Self::named("")
    }
}

/// An enclave on a simulated platform: a [`QuoteSource`] that signs anything.
#[derive(Clone)]
pub struct SimulatedEnclave {
    pub(crate) platform: Arc<Platform>,
    pub(crate) enclave: Enclave,
}

impl SimulatedEnclave {
    /// What the enclave claims to be.
    pub fn enclave(&self) -> &Enclave {
        &self.enclave
    }

    /// The platform it runs on.
    pub fn platform(&self) -> &Arc<Platform> {
        &self.platform
    }
}

impl QuoteSource for SimulatedEnclave {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        self.platform
            .quote(&self.enclave, report_data)
            .map_err(|error| QuoteError::Source(error.to_string()))
    }

    fn describe(&self) -> String {
        "SIMULATED SGX enclave".to_owned()
    }
}

/// The policy file that accepts these enclaves (name, enclave) of this platform and names its root.
pub fn policy_toml(platform: &Platform, enclaves: &[(&str, &Enclave)]) -> String {
    let mut text = head(platform);
    for (name, enclave) in enclaves {
        let table = format!(
            "\n[[enclave]]\n\
             name = {}\n\
             mr_enclave = \"{}\"\n\
             mr_signer = \"{}\"\n\
             isv_prod_id = {}\n\
             minimum_isv_svn = {}\n",
            toml_string(name),
            hex::encode(enclave.mr_enclave),
            hex::encode(enclave.mr_signer),
            enclave.isv_prod_id,
            enclave.isv_svn,
        );
        text.push_str(&table);
    }
    text
}

/// The start of a policy file that names this platform's root.
pub(crate) fn head(platform: &Platform) -> String {
    format!(
        "# SIMULATED: accepts a simulated platform, which protects nothing.\n\
         version = 1\n\
         tcb_statuses = [\"UpToDate\"]\n\
         advisories = []\n\
         maximum_collateral_age_days = 7\n\
         insecure_simulated_root = \"\"\"\n{}\"\"\"\n",
        platform.root_pem()
    )
}

impl Platform {
    /// An SGX quote of version 3 (Intel SGX ECDSA QuoteLibReference, appendix A).
    fn quote(&self, enclave: &Enclave, report_data: &[u8; 64]) -> Result<Vec<u8>, Error> {
        let mut quote = header(3, TEE_SGX, &self.digest()[..20]);
        quote.extend(report(enclave, report_data));
        let mut auth = self.signed(&quote)?;
        auth.extend(self.certified(&self.quoting_enclave)?);
        quote.extend(length(auth.len()));
        quote.extend(auth);
        Ok(quote)
    }

    /// The attestation key's signature over header and report, followed by the key.
    pub(crate) fn signed(&self, header_and_report: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = sign_raw(&self.attestation_key, header_and_report)?;
        Ok([&signature, coordinates(&self.attestation_key)].concat())
    }

    /// This quoting enclave's report over the attestation key, signed with the PCK, and the chain.
    pub(crate) fn certified(&self, quoting: &Enclave) -> Result<Vec<u8>, Error> {
        let mut report_data = [0; 64];
        let bound = Sha256::new()
            .chain_update(coordinates(&self.attestation_key))
            .chain_update(QE_AUTH)
            .finalize();
        report_data[..32].copy_from_slice(&bound);
        let report = report(quoting, &report_data);
        let mut part = report.clone();
        part.extend(sign_raw(&self.pck.key, &report)?);
        part.extend(32u16.to_le_bytes());
        part.extend(QE_AUTH);
        part.extend(5u16.to_le_bytes());
        let chain = self.pck_chain();
        part.extend(length(chain.len() + 1));
        part.extend(chain.as_bytes());
        part.push(0);
        Ok(part)
    }
}

const QE_AUTH: [u8; 32] = [0xA5; 32];
const TEE_SGX: u32 = 0;
const INTEL_QE: [u8; 16] = [
    0x93, 0x9A, 0x72, 0x33, 0xF7, 0x9C, 0x4C, 0xA9, 0x94, 0x0A, 0x0D, 0xB3, 0x95, 0x7F, 0x06, 0x07,
];

pub(crate) fn header(version: u16, tee: u32, user_data: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(48);
    header.extend(version.to_le_bytes());
    header.extend(2u16.to_le_bytes());
    header.extend(tee.to_le_bytes());
    header.extend(QE_SVN.to_le_bytes());
    header.extend(PCE_SVN.to_le_bytes());
    header.extend(INTEL_QE);
    header.extend(user_data);
    header
}

/// A REPORT body (Intel SDM volume 3D, 38.15), 384 bytes.
fn report(enclave: &Enclave, report_data: &[u8; 64]) -> Vec<u8> {
    let mut report = vec![0; 384];
    let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &CPU_SVN);
    put(16, &enclave.misc_select.to_le_bytes());
    put(32, &enclave.isv_ext_prod_id);
    put(48, &[enclave.flags()]);
    put(56, &enclave.xfrm.to_le_bytes());
    put(64, &enclave.mr_enclave);
    put(128, &enclave.mr_signer);
    put(192, &enclave.config_id);
    put(256, &enclave.isv_prod_id.to_le_bytes());
    put(258, &enclave.isv_svn.to_le_bytes());
    put(260, &enclave.config_svn.to_le_bytes());
    put(304, &enclave.isv_family_id);
    put(320, report_data);
    report
}

pub(crate) fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a quote has a few kilobytes").to_le_bytes()
}

/// A TOML basic string.
pub(crate) fn toml_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.extend(format!("\\u{:04X}", u32::from(c)).chars()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
