//! `convelo serve`: the service on this host.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use convelo_attest::{PlatformId, Policy, QuoteSource};
use convelo_channel::{Credential, Expect, Identity, IdentityError, ListenerError, PeerTls, Roots};
use convelo_operate::{
    CollateralFile, Collector, Extras, PsiError, PsiPort, PsiTls, PsiWire, StatusPort,
};
use convelo_party::{Refresh, Refreshing};
use convelo_service::{CollateralSource, Config, Service, ServiceError};
use serde_json::json;
use zeroize::Zeroizing;

use crate::args::{Pcs, PsiWireArgs, Serve};
use crate::exit::Failure;
use crate::{files, output, pcs, platform, stop};

pub(crate) async fn serve(args: Serve) -> Result<ExitCode, Failure> {
    output::start_logging(if args.voice.quiet {
        output::LevelFilter::ERROR
    } else {
        output::LevelFilter::INFO
    });
    let simulated = args.platform.simulated.as_deref();
    let source = platform::source(&args.platform, platform::SERVICE)?;
    let identity = match &args.identity {
        Some(path) => files::read_identity(path)?,
        None => Identity::generate(),
    };
    let root = args.insecure_simulated_root.as_deref();
    let policy = args.policy.as_deref().map(|path| files::policy(path, root)).transpose()?;
    let collateral = match (args.collateral, &args.policy) {
        (Some(path), _) => Some(path),
        (None, Some(policy)) => Some(files::sibling(policy, "collateral.json")),
        (None, None) => None,
    };
    let beside = |dir: &std::path::PathBuf| dir.join("collateral.json");
    let offer = args.offer_collateral.or_else(|| args.platform.simulated.as_ref().map(beside));
    let _refreshing =
        refresh(&args.refresh, offer.as_deref(), collateral.as_deref(), &*source, simulated)?;
    if let Some(path) = &collateral {
        files::collateral(Some(path), path)?;
    }
    let file = |path| Arc::new(CollateralFile::new(path)) as Arc<dyn CollateralSource>;
    let collector = args.otlp.map(|address| {
        let every = Duration::from_secs(args.otlp_every);
        Collector::new(&address, convelo_party::web_tls(false), every)
    });
    let collector =
        collector.transpose().map_err(|error| Failure::usage(format!("--otlp: {error}")))?;
    let status = match &args.status {
        Some(address) => Some(StatusPort::bind(address).await.map_err(|error| {
            Failure::usage(format!("cannot listen on {address} for --status: {error}"))
        })?),
        None => None,
    };
    let describe = source.describe();
    let key = files::key_id(&identity);
    let reconnect_within = Duration::from_secs(args.reconnect_within);
    let psi = psi_wire(&args.psi, reconnect_within, || PsiTls::Attested {
        identity: identity.clone(),
        source: Arc::clone(&source),
        client_policy: policy.clone(),
    })?;
    let config = Config {
        listen: args.listen,
        identity,
        source,
        collateral: collateral.map(file),
        offer: offer.map(file),
        provider_policy: policy,
        memory: args.memory,
        reconnect_within,
        insecure_ratls_only: args.insecure_ratls_only,
    };
    let service = Service::bind(config).await.map_err(no_service)?;
    let psi = match psi {
        Some(wire) => Some(PsiPort::bind(wire, service.shared()).await.map_err(no_psi_port)?),
        None => None,
    };
    let address = service.address();
    if args.voice.json {
        output::json(&json!({
            "listening": address.to_string(),
            "platform": describe,
            "simulated": simulated.is_some(),
            "key": key,
            "status": status.as_ref().map(|port| port.address().to_string()),
            "psi": psi.as_ref().map(|port| port.address().to_string()),
            "psi_attested": psi.as_ref().map(PsiPort::is_attested),
        }))?;
    }
    if !args.voice.quiet {
        output::say(format_args!("listening on {address}; platform: {describe}; key {key}"));
        tell_of(status.as_ref(), psi.as_ref(), simulated.is_some());
    }
    let extras = Extras { status, psi, collector };
    convelo_operate::run(service, extras, stop::requested()).await.map_err(Failure::job)?;
    if !args.voice.quiet {
        output::say("stopped; every party was told, nothing of a job is kept");
    }
    Ok(ExitCode::SUCCESS)
}

fn no_service(error: ServiceError) -> Failure {
    match error {
        ServiceError::Listener(ListenerError::Identity(IdentityError::Quote(_))) => {
            Failure::usage(format!(
                "{error}; outside an enclave or a TDX guest, use '--simulated DIR' with a platform from \
                 'convelo simulator new DIR'"
            ))
        }
        _ => Failure::usage(error),
    }
}

fn no_psi_port(error: PsiError) -> Failure {
    match error {
        PsiError::Memory { .. } => {
            Failure::usage(format!("{error}; raise --memory or lower --psi-message"))
        }
        _ => Failure::usage(error),
    }
}

/// What else is open next to the service, and what nobody may overlook.
fn tell_of(status: Option<&StatusPort>, psi: Option<&PsiPort>, simulated: bool) {
    if let Some(status) = status.map(StatusPort::address) {
        output::say(format_args!("status, in plain HTTP: http://{status}/readyz, /metrics"));
    }
    if let Some(psi) = psi {
        let how = if psi.is_attested() {
            "RA-TLS"
        } else {
            "ordinary TLS, NOT ATTESTED: clients cannot tell which program runs here"
        };
        output::say(format_args!(
            "psi.PSI on {}; {how}; it sees their ids in the clear",
            psi.address()
        ));
    }
    if simulated {
        output::say("SIMULATED: nothing here is protected by hardware");
    }
}

/// The wire of Intel's "PSI with SGX", if requested.
fn psi_wire(
    args: &PsiWireArgs,
    reconnect_within: Duration,
    attested: impl FnOnce() -> PsiTls,
) -> Result<Option<PsiWire>, Failure> {
    let Some(listen) = args.psi_listen.clone() else { return Ok(None) };
    let tls = match (&args.insecure_psi_certificate, &args.psi_key) {
        (Some(certificate), Some(key)) => {
            let chain = files::bytes(certificate, "certificate")?;
            let key = Zeroizing::new(files::bytes(key, "key")?);
            let credential = Credential::from_pem(&key, &chain).map_err(Failure::usage)?;
            let authorities = args.psi_client_ca.as_deref();
            let authorities =
                authorities.map(|path| files::bytes(path, "authorities")).transpose()?;
            let roots = authorities.map(|pem| Roots::from_pem(&pem)).transpose();
            let roots = roots.map_err(Failure::usage)?;
            let chained = roots.is_some().then_some(Expect::Chained);
            let pinned = args.psi_client.iter().map(|key| Expect::Key(key.0));
            let expect: Vec<_> = chained.into_iter().chain(pinned).collect();
            if expect.is_empty() {
                return Err(Failure::usage(
                    "say which clients to accept: --psi-client-ca PEM, or --psi-client sha256:… for each",
                ));
            }
            PsiTls::Unattested { tls: PeerTls::new(credential, roots), expect }
        }
        _ => attested(),
    };
    let deadline = Duration::from_secs(args.psi_deadline);
    let message_bytes = args.psi_message;
    Ok(Some(PsiWire { listen, tls, message_bytes, deadline, reconnect_within }))
}

/// Keeps the collateral files fresh if a service to fetch from is named. Fetches missing ones
/// first, so that the service does not start without them.
fn refresh(
    from: &Pcs,
    offer: Option<&Path>,
    collateral: Option<&Path>,
    source: &dyn QuoteSource,
    simulated: Option<&Path>,
) -> Result<Vec<Refreshing>, Failure> {
    if from.pccs.is_empty() && from.qcnl.is_none() {
        return Ok(Vec::new());
    }
    let mut files: Vec<&Path> = offer.into_iter().chain(collateral).collect();
    files.dedup();
    if files.is_empty() {
        return Err(Failure::usage(
            "nothing to keep fresh: name the file with --offer-collateral (or --collateral)",
        ));
    }
    let mut refreshing = Vec::new();
    for path in files {
        let missing = !path.exists();
        if missing && Some(path) != offer {
            let text = format!(
                "{} is missing, and nothing says whose collateral it should hold: fetch it once \
                 with 'convelo collateral export --for'",
                path.display()
            );
            return Err(Failure::usage(text));
        }
        let platform = if missing {
            let quote = source.quote(&[0; 64]).map_err(Failure::usage)?;
            PlatformId::of_quote(&quote).map_err(Failure::usage)?
        } else {
            PlatformId::of_collateral(&files::collateral(Some(path), path)?)
                .map_err(Failure::usage)?
        };
        // Anyone who verifies with it has a policy; what is kept here is at least signed by Intel.
        let policy = Policy::of_intels_root();
        let policy = match simulated {
            Some(dir) => policy
                .with_insecure_simulated_root(&files::text(&dir.join("root.pem"), "the root")?)
                .map_err(Failure::usage)?,
            None => policy,
        };
        let refresh =
            Refresh { client: pcs::client(from)?, platform, path: path.to_owned(), policy };
        if missing {
            refresh.once().map_err(Failure::job)?;
        }
        let started = refresh.in_background();
        refreshing.push(started.map_err(|error| Failure::usage(error.to_string()))?);
    }
    Ok(refreshing)
}
