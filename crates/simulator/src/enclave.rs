//! Simulated enclaves and their quotes.

use std::sync::Arc;

use convelo_attest::{QuoteError, QuoteSource};
use sha2::{Digest, Sha256};

use crate::collateral::{QE_MR_SIGNER, QE_SVN};
use crate::key::{coordinates, sign_raw};
use crate::platform::{CPU_SVN, Error, PCE_SVN, Platform};

/// What a simulated enclave says that it is.
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
}

impl Enclave {
    /// The stand-in for the program of this name: `mr_enclave` = SHA-256(`convelo simulated
    /// enclave` || name), `mr_signer` = SHA-256(`convelo simulated signer`). Fixed, so that a
    /// policy for a simulated run can be written down.
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
    /// The enclave named by the empty string.
    fn default() -> Self {
        Self::named("")
    }
}

/// An enclave on a simulated platform: a [`QuoteSource`] that signs whatever it is given.
#[derive(Clone)]
pub struct SimulatedEnclave {
    pub(crate) platform: Arc<Platform>,
    pub(crate) enclave: Enclave,
}

impl SimulatedEnclave {
    /// What the enclave says that it is.
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

/// The policy file that accepts these enclaves (name, enclave) of this platform, with its root
/// named.
pub fn policy_toml(platform: &Platform, enclaves: &[(&str, &Enclave)]) -> String {
    let mut text = format!(
        "# SIMULATED: accepts a simulated platform, which protects nothing.\n\
         version = 1\n\
         tcb_statuses = [\"UpToDate\"]\n\
         advisories = []\n\
         maximum_collateral_age_days = 7\n\
         insecure_simulated_root = \"\"\"\n{}\"\"\"\n",
        platform.root_pem()
    );
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

impl Platform {
    /// An SGX quote of version 3 (Intel SGX ECDSA QuoteLibReference, appendix A).
    fn quote(&self, enclave: &Enclave, report_data: &[u8; 64]) -> Result<Vec<u8>, Error> {
        let mut quote = header(&self.digest()[..20]);
        quote.extend(report(&Body {
            flags: enclave.flags(),
            mr_enclave: &enclave.mr_enclave,
            mr_signer: &enclave.mr_signer,
            isv_prod_id: enclave.isv_prod_id,
            isv_svn: enclave.isv_svn,
            report_data,
        }));
        let signature = sign_raw(&self.attestation_key, &quote)?;
        let attestation_key = coordinates(&self.attestation_key);

        let mut qe_report_data = [0; 64];
        let bound = Sha256::new().chain_update(attestation_key).chain_update(QE_AUTH).finalize();
        qe_report_data[..32].copy_from_slice(&bound);
        let qe_report = report(&Body {
            flags: 0x15,
            mr_enclave: &[0x33; 32],
            mr_signer: &QE_MR_SIGNER,
            isv_prod_id: 1,
            isv_svn: QE_SVN,
            report_data: &qe_report_data,
        });
        let qe_signature = sign_raw(&self.pck.key, &qe_report)?;

        let chain = self.pck_chain();
        let mut auth = Vec::new();
        auth.extend(signature);
        auth.extend(attestation_key);
        auth.extend(qe_report);
        auth.extend(qe_signature);
        auth.extend(32u16.to_le_bytes());
        auth.extend(QE_AUTH);
        auth.extend(5u16.to_le_bytes());
        auth.extend(length(chain.len() + 1));
        auth.extend(chain.as_bytes());
        auth.push(0);
        quote.extend(length(auth.len()));
        quote.extend(auth);
        Ok(quote)
    }
}

const QE_AUTH: [u8; 32] = [0xA5; 32];
const INTEL_QE: [u8; 16] = [
    0x93, 0x9A, 0x72, 0x33, 0xF7, 0x9C, 0x4C, 0xA9, 0x94, 0x0A, 0x0D, 0xB3, 0x95, 0x7F, 0x06, 0x07,
];

struct Body<'a> {
    flags: u8,
    mr_enclave: &'a [u8; 32],
    mr_signer: &'a [u8; 32],
    isv_prod_id: u16,
    isv_svn: u16,
    report_data: &'a [u8; 64],
}

fn header(user_data: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(48);
    header.extend(3u16.to_le_bytes());
    header.extend(2u16.to_le_bytes());
    header.extend(0u32.to_le_bytes());
    header.extend(QE_SVN.to_le_bytes());
    header.extend(PCE_SVN.to_le_bytes());
    header.extend(INTEL_QE);
    header.extend(user_data);
    header
}

/// A REPORT body (Intel SDM volume 3D, 38.15), 384 bytes.
fn report(fields: &Body<'_>) -> Vec<u8> {
    let mut report = vec![0; 384];
    let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &CPU_SVN);
    put(48, &[fields.flags]);
    put(56, &[0xE7]);
    put(64, fields.mr_enclave);
    put(128, fields.mr_signer);
    put(256, &fields.isv_prod_id.to_le_bytes());
    put(258, &fields.isv_svn.to_le_bytes());
    put(320, fields.report_data);
    report
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a quote has a few kilobytes").to_le_bytes()
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
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
