//! The services to fetch collateral from.

use std::time::Duration;

use convelo_attest::{Qcnl, collateral_endpoint};
use convelo_party::{INTEL_PCS, PcsClient};

use crate::args::Pcs;
use crate::exit::Failure;
use crate::{files, output};

/// The named services; an error if none is named.
pub(crate) fn client(from: &Pcs) -> Result<PcsClient, Failure> {
    let mut insecure = from.insecure_any_certificate;
    let (mut retries, mut pause) = (2, Duration::from_secs(1));
    let mut endpoints = Vec::new();
    if let Some(file) = &from.qcnl {
        let text = files::text(file, "the configuration")?;
        let qcnl = Qcnl::parse(&text)
            .map_err(|error| Failure::usage(format!("{}, {error}", file.display())))?;
        for warning in &qcnl.warnings {
            output::say(format_args!("warning: {}: {warning}", file.display()));
        }
        insecure |= !qcnl.use_secure_cert;
        (retries, pause) = (qcnl.retry_times, Duration::from_secs(qcnl.retry_delay));
        endpoints.push(qcnl.url);
    }
    for url in &from.pccs {
        let url = if url == "intel" { INTEL_PCS } else { url };
        let (endpoint, warning) = collateral_endpoint(url).map_err(Failure::usage)?;
        if let Some(warning) = warning {
            output::say(format_args!("warning: {warning}"));
        }
        endpoints.push(endpoint);
    }
    if endpoints.is_empty() {
        return Err(Failure::usage("no collateral service is named: give --pccs or --qcnl"));
    }
    Ok(PcsClient::new(endpoints, retries, pause, insecure))
}
