//! `convelo serve`: the service on this host.

use std::process::ExitCode;

use convelo_attest::Collateral;
use convelo_channel::Identity;
use convelo_service::{Config, Service};
use serde_json::json;

use crate::args::Serve;
use crate::exit::{Code, Failure};
use crate::{files, output, stop};

pub(crate) async fn serve(args: Serve) -> Result<ExitCode, Failure> {
    output::start_logging(if args.voice.quiet {
        output::LevelFilter::ERROR
    } else {
        output::LevelFilter::INFO
    });
    let simulated = args.platform.simulated.as_deref();
    let source = files::source(&args.platform.attestation, simulated, files::SERVICE_ENCLAVE)?;
    let identity = match &args.identity {
        Some(path) => files::read_identity(path)?,
        None => Identity::generate(),
    };
    let root = args.insecure_simulated_root.as_deref();
    let policy = args.policy.as_deref().map(|path| files::policy(path, root)).transpose()?;
    let collateral: Option<Collateral> = match (&args.collateral, &args.policy) {
        (Some(path), _) | (None, Some(path)) => {
            Some(files::collateral(args.collateral.as_deref(), path)?)
        }
        (None, None) => None,
    };
    let beside = |dir: &std::path::PathBuf| dir.join("collateral.json");
    let offer = args.offer_collateral.or_else(|| args.platform.simulated.as_ref().map(beside));
    let platform = source.describe();
    let key = files::key_id(&identity);
    let config = Config {
        listen: args.listen,
        identity,
        source,
        collateral,
        offer,
        provider_policy: policy,
        memory: args.memory,
        insecure_ratls_only: args.insecure_ratls_only,
    };
    let service = Service::bind(config).await.map_err(|error| {
        let hint = if simulated.is_none() {
            "; outside an SGX enclave, use '--simulated DIR' with a platform of \
             'convelo simulator new DIR'"
        } else {
            ""
        };
        Failure::new(Code::Usage, format!("{error}{hint}"))
    })?;
    let address = service.address();
    if args.voice.json {
        output::json(&json!({
            "listening": address.to_string(),
            "platform": platform,
            "simulated": simulated.is_some(),
            "key": key,
        }))?;
    }
    if !args.voice.quiet {
        output::say(format_args!("listening on {address}; platform: {platform}; key {key}"));
        if simulated.is_some() {
            output::say("SIMULATED: nothing here is protected by hardware");
        }
    }
    service.run(stop::requested()).await.map_err(Failure::job)?;
    if !args.voice.quiet {
        output::say("stopped; every party was told, nothing of a job is kept");
    }
    Ok(ExitCode::SUCCESS)
}
