//! The settings of Gramine's own verifier (`ra_tls_verify_dcap`), which reads them from environment
//! variables. A person converts them once; they are not read at run time.

use super::rule::{ANY, EnclaveRule, Svn};
use super::{TcbStatus, measurement};

/// What the settings amount to.
pub(crate) struct Settings {
    pub(crate) rule: EnclaveRule,
    /// In addition to `UpToDate`.
    pub(crate) statuses: Vec<TcbStatus>,
    pub(crate) warnings: Vec<String>,
}

/// Reads the settings. Gramine's verifier requires the first four; so does this.
pub(crate) fn read<'a>(
    name: &str,
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Settings, String> {
    let mut given = Given::default();
    let mut statuses = Vec::new();
    let mut warnings = Vec::new();
    for (setting, value) in settings {
        let value = value.trim();
        let slot = match setting.trim() {
            "RA_TLS_MRENCLAVE" => &mut given.mr_enclave,
            "RA_TLS_MRSIGNER" => &mut given.mr_signer,
            "RA_TLS_ISV_PROD_ID" => &mut given.isv_prod_id,
            "RA_TLS_ISV_SVN" => &mut given.isv_svn,
            "RA_TLS_ALLOW_DEBUG_ENCLAVE_INSECURE" if value == "1" => {
                return Err("RA_TLS_ALLOW_DEBUG_ENCLAVE_INSECURE=1: debug enclaves are never \
                            accepted, because their host can read their memory; leave it out"
                    .to_owned());
            }
            "RA_TLS_ALLOW_OUTDATED_TCB_INSECURE" if value == "1" => {
                statuses.extend([TcbStatus::OutOfDate, TcbStatus::OutOfDateConfigurationNeeded]);
                warnings.push(
                    "RA_TLS_ALLOW_OUTDATED_TCB_INSECURE also admits expired collateral; this policy \
                     does not, and it accepts only advisories that it names"
                        .to_owned(),
                );
                continue;
            }
            "RA_TLS_ALLOW_HW_CONFIG_NEEDED" if value == "1" => {
                statuses.push(TcbStatus::ConfigurationNeeded);
                continue;
            }
            "RA_TLS_ALLOW_SW_HARDENING_NEEDED" if value == "1" => {
                statuses.push(TcbStatus::SWHardeningNeeded);
                continue;
            }
            other if other.starts_with("RA_TLS_ALLOW_") => {
                if value != "0" && !value.is_empty() {
                    warnings.push(format!("{other}={value}: only \"1\" counts, as in Gramine"));
                }
                continue;
            }
            "RA_TLS_CERT_TIMESTAMP_NOT_BEFORE" | "RA_TLS_CERT_TIMESTAMP_NOT_AFTER" => {
                warnings.push(format!("{setting} is only for making certificates: left out"));
                continue;
            }
            other if other.starts_with("RA_TLS_") => {
                return Err(format!("{other} is not a setting of Gramine's verifier"));
            }
            _ => continue,
        };
        if slot.replace(value.to_owned()).is_some() {
            return Err(format!("{setting} appears twice"));
        }
    }
    if statuses.contains(&TcbStatus::ConfigurationNeeded)
        && statuses.contains(&TcbStatus::SWHardeningNeeded)
    {
        statuses.push(TcbStatus::ConfigurationAndSWHardeningNeeded);
    }
    Ok(Settings { rule: given.rule(name)?, statuses, warnings })
}

#[derive(Default)]
struct Given {
    mr_enclave: Option<String>,
    mr_signer: Option<String>,
    isv_prod_id: Option<String>,
    isv_svn: Option<String>,
}

impl Given {
    fn rule(self, name: &str) -> Result<EnclaveRule, String> {
        let measured = |setting: &str, value: Option<String>| {
            let text = required(setting, value)?;
            (text != ANY)
                .then(|| measurement(&text))
                .transpose()
                .map_err(|why| format!("{setting}: {why}"))
        };
        let number = |setting: &str, value: Option<String>| {
            let text = required(setting, value)?;
            (text != ANY).then(|| text.parse::<u16>()).transpose().map_err(|_| {
                format!("{setting}={text}: expected a number from 0 to 65535, or \"any\"")
            })
        };
        let mr_enclave = measured("RA_TLS_MRENCLAVE", self.mr_enclave)?;
        let mr_signer = measured("RA_TLS_MRSIGNER", self.mr_signer)?;
        if mr_enclave.is_none() && mr_signer.is_none() {
            return Err(
                "RA_TLS_MRENCLAVE and RA_TLS_MRSIGNER are both \"any\": anybody's code would \
                        be accepted; give at least one"
                    .to_owned(),
            );
        }
        Ok(EnclaveRule {
            name: name.to_owned(),
            mr_enclave,
            mr_signer,
            isv_prod_id: number("RA_TLS_ISV_PROD_ID", self.isv_prod_id)?,
            isv_svn: Svn::AtLeast(number("RA_TLS_ISV_SVN", self.isv_svn)?.unwrap_or(0)),
            ..EnclaveRule::default()
        })
    }
}

fn required(setting: &str, value: Option<String>) -> Result<String, String> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        format!("{setting} is missing: Gramine's verifier requires it; \"any\" skips the check")
    })
}
