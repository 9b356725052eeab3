//! Simulated trust domains and their quotes.

use std::sync::Arc;

use convelo_attest::{QuoteError, QuoteSource};
use sha2::{Digest, Sha384};

use crate::collateral::TD_QE_PROD_ID;
use crate::enclave::{Enclave, head, header, length, toml_string};
use crate::platform::{Error, Platform, TEE_TCB_SVN};

/// What a simulated trust domain claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomain {
    /// The measurement of its firmware.
    pub mr_td: [u8; 48],
    /// Its run-time measurements.
    pub rtmr: [[u8; 48]; 4],
    /// Its configuration, as stated by its host.
    pub mr_config_id: [u8; 48],
    /// Its owner, as stated by its host.
    pub mr_owner: [u8; 48],
    /// Its owner's configuration, as stated by its host.
    pub mr_owner_config: [u8; 48],
    /// TD attributes; bit 28 (`SEPT_VE_DISABLE`) is set in every good one.
    pub attributes: u64,
    /// XFAM.
    pub xfam: u64,
    /// The measurement of the service domains bound to it, for reports 1.5: zero in every good one.
    pub mr_service_td: [u8; 48],
    /// The security versions of the TDX module running now, for reports 1.5.
    pub tee_tcb_svn2: [u8; 16],
    /// The form of its quotes.
    pub form: TdQuoteForm,
}

/// The forms of TDX quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TdQuoteForm {
    /// Version 4.
    V4,
    /// Version 5 around a report 1.0.
    V5,
    /// Version 5 around a report 1.5.
    V5Td15,
    /// Version 5 around an extended report 1.5.
    V5Td15Extended,
}

impl TrustDomain {
    /// The stand-in for a machine that runs the program of this name: every measurement is the
    /// SHA-384 of `convelo simulated`, the measurement's name and the program's.
    pub fn named(name: &str) -> Self {
        let measured = |what: &str| {
            Sha384::new()
                .chain_update("convelo simulated ")
                .chain_update(what)
                .chain_update(" ")
                .chain_update(name)
                .finalize()
                .into()
        };
        Self {
            mr_td: measured("mr_td"),
            rtmr: [measured("rtmr0"), measured("rtmr1"), measured("rtmr2"), [0; 48]],
            mr_config_id: [0; 48],
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            attributes: 1 << 28,
            xfam: 0x602E7,
            mr_service_td: [0; 48],
            tee_tcb_svn2: TEE_TCB_SVN,
            form: TdQuoteForm::V4,
        }
    }

    /// A TD report (Intel TDX DCAP Quoting Library API, appendix A).
    fn report(&self, report_data: &[u8; 64]) -> Vec<u8> {
        let mut report = Vec::with_capacity(885);
        report.extend(TEE_TCB_SVN);
        report.extend([0x5E; 48]); // mr_seam
        report.extend([0; 48 + 8]); // mr_signer_seam, seam_attributes
        report.extend(self.attributes.to_le_bytes());
        report.extend(self.xfam.to_le_bytes());
        for measurement in [&self.mr_td, &self.mr_config_id, &self.mr_owner, &self.mr_owner_config]
            .into_iter()
            .chain(&self.rtmr)
        {
            report.extend(measurement);
        }
        report.extend(report_data);
        if matches!(self.form, TdQuoteForm::V5Td15 | TdQuoteForm::V5Td15Extended) {
            report.extend(self.tee_tcb_svn2);
            report.extend(self.mr_service_td);
        }
        if self.form == TdQuoteForm::V5Td15Extended {
            report.resize(885, 0);
        }
        report
    }
}

/// A trust domain on a simulated platform: a [`QuoteSource`] that signs anything.
#[derive(Clone)]
pub struct SimulatedDomain {
    pub(crate) platform: Arc<Platform>,
    pub(crate) domain: TrustDomain,
}

impl QuoteSource for SimulatedDomain {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        self.platform
            .td_quote(&self.domain, report_data)
            .map_err(|error| QuoteError::Source(error.to_string()))
    }

    fn describe(&self) -> String {
        "SIMULATED TDX trust domain".to_owned()
    }
}

/// The policy file that accepts these trust domains (name, domain) of this platform and names its
/// root.
pub fn domain_policy_toml(platform: &Platform, domains: &[(&str, &TrustDomain)]) -> String {
    let mut lines = vec![head(platform)];
    for (name, domain) in domains {
        lines.push("[[trust_domain]]".to_owned());
        lines.push(format!("name = {}", toml_string(name)));
        lines.push(format!("mr_td = \"{}\"", hex::encode(domain.mr_td)));
        lines.extend(
            (0..).zip(domain.rtmr).map(|(i, rtmr)| format!("rtmr{i} = \"{}\"", hex::encode(rtmr))),
        );
    }
    lines.join("\n") + "\n"
}

impl Platform {
    /// A TDX quote (Intel TDX DCAP Quoting Library API, appendix A).
    fn td_quote(&self, domain: &TrustDomain, report_data: &[u8; 64]) -> Result<Vec<u8>, Error> {
        let report = domain.report(report_data);
        let (version, kind): (u16, u16) = match domain.form {
            TdQuoteForm::V4 => (4, 0),
            TdQuoteForm::V5 => (5, 2),
            TdQuoteForm::V5Td15 => (5, 3),
            TdQuoteForm::V5Td15Extended => (5, 4),
        };
        let mut quote = header(version, TEE_TDX, &self.digest()[..20]);
        if kind != 0 {
            quote.extend(kind.to_le_bytes());
            quote.extend(length(report.len()));
        }
        quote.extend(report);
        let mut auth = self.signed(&quote)?;
        let quoting = Enclave { isv_prod_id: TD_QE_PROD_ID, ..self.quoting_enclave.clone() };
        let part = self.certified(&quoting)?;
        auth.extend(6u16.to_le_bytes());
        auth.extend(length(part.len()));
        auth.extend(part);
        quote.extend(length(auth.len()));
        quote.extend(auth);
        Ok(quote)
    }
}

const TEE_TDX: u32 = 0x81;
