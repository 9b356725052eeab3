//! `convelo serve`: the service on this host.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use convelo_attest::{PlatformId, Policy, QuoteSource};
use convelo_channel::{Credential, Expect, Identity, IdentityError, ListenerError, PeerTls, Roots};
use convelo_operate::{
    AdmitFile, Collector, Extras, PsiError, PsiPort, PsiTls, PsiWire, StatusPort,
};
use convelo_party::{Refresh, Refreshing};
use convelo_service::{
    AdmitList, CollateralFile, CollateralSource, Config, Limits, Service, ServiceError, Shared,
};
use serde_json::json;

use crate::args::{LogArg, Pcs, PsiWireArgs, Serve};
use crate::exit::Failure;
use crate::log::{self, LevelFilter};
use crate::{files, notify, output, pcs, platform, stop};

pub(crate) async fn serve(args: Serve) -> Result<ExitCode, Failure> {
    let quiet = args.voice.quiet;
    log::start(if quiet { LevelFilter::ERROR } else { LevelFilter::INFO }, args.log);
    if args.psi.insecure_psi_certificate.is_some() && !platform::is_here(&args.platform) {
        return psi_alone(&args).await;
    }
    let simulated = args.platform.simulated.as_deref();
    let source = platform::source(&args.platform, platform::SERVICE)?;
    let identity = match &args.identity {
        Some(path) => files::read_identity(path)?,
        None => Identity::generate(),
    };
    let insecure_simulated =
        args.insecure_simulated || args.insecure_simulated_root.is_some() || simulated.is_some();
    let policy = own_policy(&args, insecure_simulated)?;
    let collateral = own_collateral(&args);
    let beside = |dir: &PathBuf| dir.join("collateral.json");
    let offer = args.offer_collateral.clone();
    let offer = offer.or_else(|| args.platform.simulated.as_ref().map(beside));
    let _refreshing =
        refresh(&args.refresh, offer.as_deref(), collateral.as_deref(), &*source, simulated)?;
    if let Some(path) = &collateral {
        files::collateral(Some(path), path)?;
    }
    let file = |path| Arc::new(CollateralFile::new(path)) as Arc<dyn CollateralSource>;
    let extras = extras(&args).await?;
    let describe = source.describe();
    let key = files::key_id(&identity);
    let psi = match &args.psi.psi_listen {
        Some(listen) => {
            let attested = || PsiTls::Attested {
                identity: identity.clone(),
                source: Arc::clone(&source),
                client_policy: policy.clone(),
            };
            let tls = ordinary_tls(&args.psi)?.unwrap_or_else(attested);
            Some(psi_wire(&args, listen, tls))
        }
        None => None,
    };
    let config = Config {
        listen: args.listen,
        identity,
        source,
        collateral: collateral.map(file),
        offer: offer.map(file),
        provider_policy: policy,
        admit: admit_list(&extras),
        behind_balancer: args.behind_balancer,
        memory: args.memory,
        limits: Limits::default(),
        reconnect_within: Duration::from_secs(args.reconnect_within),
        insecure_ratls_only: args.insecure_ratls_only,
        insecure_simulated,
    };
    let service = Service::bind(config).await.map_err(no_service)?;
    let psi = match psi {
        Some(wire) => Some(PsiPort::bind(wire, service.shared()).await.map_err(no_psi_port)?),
        None => None,
    };
    let address = service.address();
    let extras = Extras { psi, ..extras };
    let unattested = extras.psi.as_ref().is_some_and(|psi| !psi.is_attested());
    let notices = notices(insecure_simulated, unattested, args.insecure_ratls_only);
    if args.voice.json {
        output::json(&json!({
            "listening": address.to_string(),
            "platform": describe,
            "simulated": simulated.is_some(),
            "key": key,
            "admitted": extras.admit.as_ref().map(|list| list.len()),
            "status": extras.status.as_ref().map(|port| port.address().to_string()),
            "psi": extras.psi.as_ref().map(|port| port.address().to_string()),
            "psi_attested": extras.psi.as_ref().map(PsiPort::is_attested),
            "notices": notices,
        }))?;
    }
    if !args.voice.quiet {
        log::info(
            args.log,
            format_args!("listening on {address}; platform: {describe}; key {key}"),
        );
        if extras.admit.is_none() {
            log::info(args.log, "anyone who proves a key may use it; --admit FILE says who may");
        }
        if let Some(psi) = &extras.psi {
            tell_of_psi(args.log, psi);
        }
        tell_of(args.log, &extras);
    }
    tell(args.log, &notices);
    let stop = notify::while_serving(stop::requested());
    convelo_operate::run(service, extras, stop).await.map_err(Failure::job)?;
    if !args.voice.quiet {
        log::info(args.log, "stopped; every party was told, nothing of a job is kept");
    }
    Ok(ExitCode::SUCCESS)
}

/// The file with the operator's collateral for providers. It may be missing beside a policy: providers
/// offer theirs, but the clients of psi.PSI cannot.
fn own_collateral(args: &Serve) -> Option<PathBuf> {
    let needed = args.psi.psi_listen.is_some();
    let beside = args.policy.as_deref().map(|policy| files::sibling(policy, "collateral.json"));
    args.collateral.clone().or_else(|| beside.filter(|path| needed || path.exists()))
}

/// The operator's policy for providers.
fn own_policy(args: &Serve, insecure_simulated: bool) -> Result<Option<Policy>, Failure> {
    let root = args.insecure_simulated_root.as_deref();
    let policy = args.policy.as_deref().map(|path| files::policy(path, root)).transpose()?;
    if policy.as_ref().is_some_and(Policy::is_simulated) && !insecure_simulated {
        return Err(Failure::usage(
            "--policy accepts a simulated platform, whose evidence proves nothing; for a test, accept \
             it with --insecure-simulated",
        ));
    }
    Ok(policy)
}

/// Serves the clients of Intel's "PSI with SGX" and nobody else: outside enclaves, with a certificate
/// that attests nothing, there is no evidence for the service's own parties.
async fn psi_alone(args: &Serve) -> Result<ExitCode, Failure> {
    let extras = extras(args).await?;
    let (Some(listen), Some(tls)) = (&args.psi.psi_listen, ordinary_tls(&args.psi)?) else {
        return Err(Failure::usage("give --psi-listen, --insecure-psi-certificate and --psi-key"));
    };
    let wire = psi_wire(args, listen, tls);
    let shared = Shared::alone(args.memory, admit_list(&extras));
    let port = PsiPort::bind(wire, shared).await.map_err(no_psi_port)?;
    let notices = notices(false, !port.is_attested(), false);
    if args.voice.json {
        output::json(&json!({
            "listening": null,
            "admitted": extras.admit.as_ref().map(|list| list.len()),
            "status": extras.status.as_ref().map(|port| port.address().to_string()),
            "psi": port.address().to_string(),
            "psi_attested": port.is_attested(),
            "notices": notices,
        }))?;
    }
    if !args.voice.quiet {
        tell_of_psi(args.log, &port);
        log::info(args.log, "nothing else is served: no evidence of a program can be made here");
        tell_of(args.log, &extras);
    }
    tell(args.log, &notices);
    let stop = notify::while_serving(stop::requested());
    convelo_operate::run_psi(port, extras, stop).await.map_err(Failure::job)?;
    if !args.voice.quiet {
        log::info(args.log, "stopped; every client was told, nothing of a job is kept");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is opened next to either.
async fn extras(args: &Serve) -> Result<Extras, Failure> {
    let collector = args.otlp.as_deref().map(|address| {
        let every = Duration::from_secs(args.otlp_every);
        Collector::new(address, convelo_party::web_tls(false), every)
    });
    let collector =
        collector.transpose().map_err(|error| Failure::usage(format!("--otlp: {error}")))?;
    let status = match &args.status {
        Some(address) => Some(StatusPort::bind(address).await.map_err(|error| {
            Failure::usage(format!("cannot listen on {address} for --status: {error}"))
        })?),
        None => None,
    };
    let admit = args.admit.as_deref().map(|path| {
        AdmitFile::open(path)
            .map_err(|error| Failure::usage(format!("--admit {}: {error}", path.display())))
    });
    Ok(Extras { status, psi: None, collector, admit: admit.transpose()? })
}

fn admit_list(extras: &Extras) -> Option<Arc<dyn AdmitList>> {
    extras.admit.clone().map(|list| list as Arc<dyn AdmitList>)
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

fn tell_of_psi(form: LogArg, psi: &PsiPort) {
    let how = if psi.is_attested() { "RA-TLS" } else { "ordinary TLS, NOT ATTESTED" };
    let address = psi.address();
    log::info(form, format_args!("psi.PSI on {address}; {how}; it sees their ids in the clear"));
}

/// What takes protection away: nothing silences these lines.
fn notices(simulated: bool, unattested: bool, ratls_only: bool) -> Vec<&'static str> {
    [
        (simulated, "SIMULATED: nothing here is protected by hardware"),
        (unattested, "NOT ATTESTED: the clients of psi.PSI cannot tell which program runs here"),
        (ratls_only, "NOT FRESH: parties may come that ask for no fresh attestation"),
    ]
    .into_iter()
    .filter_map(|(holds, notice)| holds.then_some(notice))
    .collect()
}

fn tell(form: LogArg, notices: &[&str]) {
    for notice in notices {
        log::warn(form, notice);
    }
}

/// What else is open.
fn tell_of(form: LogArg, extras: &Extras) {
    if let Some(status) = extras.status.as_ref().map(StatusPort::address) {
        log::info(form, format_args!("status, in plain HTTP: http://{status}/readyz, /metrics"));
    }
    if let Some(list) = &extras.admit {
        log::info(form, format_args!("{} keys are admitted", list.len()));
    }
}

/// The wire of Intel's "PSI with SGX".
fn psi_wire(args: &Serve, listen: &str, tls: PsiTls) -> PsiWire {
    PsiWire {
        listen: listen.to_owned(),
        tls,
        message_bytes: args.psi.psi_message,
        result_bytes: args.psi.psi_result,
        deadline: Duration::from_secs(args.psi.psi_deadline),
        reconnect_within: Duration::from_secs(args.reconnect_within),
        behind_balancer: args.behind_balancer,
    }
}

/// Ordinary TLS for it, if requested.
fn ordinary_tls(args: &PsiWireArgs) -> Result<Option<PsiTls>, Failure> {
    let (Some(certificate), Some(key)) = (&args.insecure_psi_certificate, &args.psi_key) else {
        return Ok(None);
    };
    let chain = files::bytes(certificate, "certificate")?;
    let credential = files::secret(key, "the key", |key| {
        Credential::from_pem(key, &chain).map_err(Failure::usage)
    })?;
    let authorities = args.psi_client_ca.as_deref();
    let authorities = authorities.map(|path| files::bytes(path, "authorities")).transpose()?;
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
    Ok(Some(PsiTls::Unattested { tls: PeerTls::new(credential, roots), expect }))
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
