//! Step 5: what the platform is, and how up to date it is.

use dcap_qvl::{PckCertFlag, QuoteClaims, SvnComponent};
use sha2::{Digest as _, Sha256};

use super::passed;
use crate::collateral::Collateral;
use crate::date;
use crate::policy::{Policy, TcbStatus};
use crate::quote::{Quote, Report};
use crate::refusal::{Matter, Refusal, Stage};
use crate::verdict::Check;

/// Checks that the policy names every status or that it is within the grace period, that the policy
/// names every advisory, and that it allows this machine and this kind of platform. Returns the
/// status, and when its grace period ends.
pub(super) fn check(
    quote: &Quote,
    claims: &QuoteClaims,
    collateral: &Collateral,
    policy: &Policy,
    now: u64,
    checks: &mut Vec<Check>,
) -> Result<(TcbStatus, u64), Refusal> {
    let status = statuses(quote, claims, collateral, policy, now, checks)?;
    advisories(claims, policy, checks)?;
    machine(claims, policy)?;
    Ok(status)
}

fn statuses(
    quote: &Quote,
    claims: &QuoteClaims,
    collateral: &Collateral,
    policy: &Policy,
    now: u64,
    checks: &mut Vec<Check>,
) -> Result<(TcbStatus, u64), Refusal> {
    let of_qe = &claims.qe.tcb_level;
    let qe_since = date::parse(&of_qe.tcb_date).unwrap_or(0);
    // If the quoting enclave is out of date, the converged status says so too; it counts from the
    // older of the two dates.
    let platform_since = match of_qe.tcb_status {
        dcap_qvl::TcbStatus::UpToDate => claims.platform.tcb_date_tag,
        _ => claims.platform.tcb_date_tag.min(qe_since),
    };
    let statuses = [
        ("platform and quoting enclave", claims.tcb.status, platform_since),
        ("quoting enclave", of_qe.tcb_status, qe_since),
    ];
    let mut grace_ends = u64::MAX;
    for (whose, found, since) in statuses {
        let status = TcbStatus::from_dcap(found);
        if status.is_some_and(|status| policy.tcb_statuses().contains(&status)) {
            continue;
        }
        let ends = since + policy.grace_period();
        if status.is_some_and(|status| in_grace(status, policy)) && now <= ends {
            grace_ends = grace_ends.min(ends);
            continue;
        }
        let found = format!(
            "{found} ({whose}{}{}; since {})",
            listed(&claims.tcb.advisory_ids),
            shortfall(quote, claims, collateral, policy),
            date::show(since)
        );
        let refusal = refused_status(found, policy);
        if status == Some(TcbStatus::UpToDate) {
            // No platform can be better.
            return Err(refusal.advice("add \"UpToDate\" to the policy's tcb_statuses"));
        }
        return Err(refusal);
    }
    let status = TcbStatus::from_dcap(claims.tcb.status).expect("it was accepted just now");
    let found = match grace_ends {
        u64::MAX => status.to_string(),
        ends => format!("{status}, in grace until {}", date::show(ends)),
    };
    passed(checks, "TCB status", found, accepted_statuses(policy));

    Ok((status, grace_ends))
}

fn advisories(
    claims: &QuoteClaims,
    policy: &Policy,
    checks: &mut Vec<Check>,
) -> Result<(), Refusal> {
    let missing: Vec<&str> = claims
        .tcb
        .advisory_ids
        .iter()
        .filter(|id| !policy.advisories().contains(id))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        return Err(Refusal::new(Stage::TcbStatus, "advisory", Matter::Platform)
            .found(format!("advisories {}", missing.join(", ")))
            .expected(match policy.advisories() {
                [] => "none".to_owned(),
                some => format!("none but {}", some.join(", ")),
            })
            .advice(
                "read them at intel.com/security-center; update the peer's firmware, or add them \
                 to the policy's advisories",
            ));
    }
    let found = match claims.tcb.advisory_ids.as_slice() {
        [] => "none".to_owned(),
        some => some.join(", "),
    };
    passed(checks, "advisories", found, "only advisories that the policy names");

    Ok(())
}

fn machine(claims: &QuoteClaims, policy: &Policy) -> Result<(), Refusal> {
    let machine: [u8; 32] = Sha256::digest(&claims.platform.pck.ppid).into();
    if !policy.platforms().is_empty() && !policy.platforms().contains(&machine) {
        return Err(Refusal::new(Stage::TcbStatus, "platform", Matter::Policy)
            .found(format!("the platform {}", hex::encode(machine)))
            .expected(format!("one of the {} that the policy names", policy.platforms().len()))
            .advice(
                "this is not a machine that was agreed on: ask its operator before you add it to \
                 the policy's platforms",
            ));
    }
    let (pck, rule) = (&claims.platform.pck, policy.platform());
    for (stated, allowed, code, found, name) in [
        (
            pck.cached_keys,
            rule.allow_cached_keys,
            "cached-keys",
            "a platform whose root keys are kept by Intel's registration service",
            "allow_cached_keys",
        ),
        (
            pck.dynamic_platform,
            rule.allow_dynamic_platform,
            "dynamic-platform",
            "a platform that allows processor packages to be added",
            "allow_dynamic_platform",
        ),
        (
            pck.smt_enabled,
            rule.allow_smt,
            "smt",
            "a platform on which two threads share a core",
            "allow_smt",
        ),
    ] {
        if stated == PckCertFlag::True && !allowed {
            return Err(Refusal::new(Stage::TcbStatus, code, Matter::Platform)
                .found(found)
                .expected(format!("a platform without this, or {name} = true in the policy"))
                .advice(
                    "change that in the platform's BIOS and register it again, or allow it after \
                     considering who could exploit it",
                ));
        }
    }
    Ok(())
}

/// Whether a grace period covers this status: out of date, and otherwise one that the policy
/// accepts.
fn in_grace(status: TcbStatus, policy: &Policy) -> bool {
    match status {
        TcbStatus::OutOfDate => true,
        TcbStatus::OutOfDateConfigurationNeeded => {
            policy.tcb_statuses().contains(&TcbStatus::ConfigurationNeeded)
        }
        _ => false,
    }
}

/// Which security versions are below the best level that the policy would accept.
fn shortfall(
    quote: &Quote,
    claims: &QuoteClaims,
    collateral: &Collateral,
    policy: &Policy,
) -> String {
    let tee_tcb_svn = match quote.report() {
        Report::Sgx(_) => None,
        Report::Tdx(report) => Some(&report.tee_tcb_svn),
    };
    let pck = &claims.platform.pck;
    let wanted = collateral.tcb_info().tcb_levels.iter().find(|level| {
        TcbStatus::from_dcap(level.tcb_status)
            .is_some_and(|status| policy.tcb_statuses().contains(&status))
    });
    let missing = wanted
        .and_then(|level| level.shortfalls(&pck.cpu_svn, pck.pce_svn, tee_tcb_svn).ok())
        .unwrap_or_default();
    let each = missing.iter().map(|short| {
        let component = match short.component {
            SvnComponent::Sgx(index) => format!("CPUSVN[{index}]"),
            SvnComponent::Tdx(index) => format!("TEE_TCB_SVN[{index}]"),
            SvnComponent::PceSvn => "PCESVN".to_owned(),
            SvnComponent::TdxModuleIsvSvn => "TEE_TCB_SVN[0]".to_owned(),
        };
        format!("; {component} is {}, needs {}", short.have, short.needs)
    });
    each.collect::<Vec<_>>().concat()
}

pub(super) fn refused_status(found: String, policy: &Policy) -> Refusal {
    Refusal::new(Stage::TcbStatus, "tcb-status", Matter::Platform)
        .found(found)
        .expected(accepted_statuses(policy))
        .advice(
            "update the peer's BIOS and microcode and restart it; or, after reading the \
             advisories, add the status to the policy's tcb_statuses",
        )
}

fn accepted_statuses(policy: &Policy) -> String {
    let names: Vec<&str> = policy.tcb_statuses().iter().map(|status| status.as_str()).collect();
    let named = names.join(" or ");
    match policy.grace_period() {
        0 => named,
        span => format!("{named}, or out of date for at most {}", date::span(span)),
    }
}

fn listed(advisories: &[String]) -> String {
    match advisories {
        [] => String::new(),
        some => format!("; {}", some.join(" ")),
    }
}
