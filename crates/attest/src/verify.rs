//! From evidence to a verdict, in five steps.
//!
//! 1. `root`: the quote's certificates chain to the root that the policy names.
//! 2. `program`: the policy accepts the enclave or trust domain: attributes, key binding,
//!    measurement.
//! 3. `collateral`: our collateral is about this platform, in force and recent, and revokes nothing
//!    here.
//! 4. `signatures`: everything is signed, from the root down to the report.
//! 5. `platform`: the policy accepts the platform's status and advisories.
//!
//! Steps 1 to 3 read statements that only step 4 proves. They come first because they are cheap and
//! because a person can act on each of their answers; nothing is accepted before step 4.

mod platform;

use convelo_untrusted::Untrusted;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuotePolicy, intel};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::attributes;
use crate::collateral::Collateral;
use crate::date;
use crate::evidence::Evidence;
use crate::policy::{INTEL_SGX_ROOT_CA, Policy, subject};
use crate::quote::Quote;
use crate::refusal::{Matter, Refusal, Stage};
use crate::verdict::{Check, Verdict};

/// Verifies evidence under collateral and a policy at `now` (Unix seconds).
///
/// The verdict is about the key in [`Evidence::spki`]; the caller must make sure that the peer
/// holds it. Verification stops at the first check that fails.
pub fn verify(
    evidence: &Evidence,
    collateral: &Collateral,
    policy: &Policy,
    now: u64,
) -> Result<Verdict, Refusal> {
    verify_listing(evidence, collateral, policy, now, &mut Vec::new())
}

/// Like [`verify`], but also lists the checks that passed in `checks`, including those before a
/// refusal.
pub fn verify_listing(
    evidence: &Evidence,
    collateral: &Collateral,
    policy: &Policy,
    now: u64,
    checks: &mut Vec<Check>,
) -> Result<Verdict, Refusal> {
    let quote = evidence.parsed();
    root(quote, policy, checks)?;
    let name = program(evidence, policy, now, checks)?;
    in_force(quote, collateral, policy, now, checks)?;
    let claims = signatures(quote, collateral, policy, now, checks)?;
    let (tcb_status, grace_ends) =
        platform::check(quote, &claims, collateral, policy, now, checks)?;
    Ok(Verdict {
        simulated: policy.is_simulated(),
        any_platform: policy.accepts_any_platform(),
        name: name.to_owned(),
        measurements: Box::new(quote.measurements()),
        tcb_status,
        advisories: claims.tcb.advisory_ids,
        root_key_id: claims.platform.root_key_id,
        fmspc: claims.platform.pck.fmspc.to_vec(),
        collateral_digest: collateral.digest(),
        policy_digest: policy.digest(),
        spki: evidence.spki().to_vec(),
        verified_at: now,
        expires: evidence
            .not_after()
            .min(claims.earliest_expiration_date)
            .min(collateral.expires())
            .min(collateral.issued() + policy.maximum_collateral_age())
            .min(grace_ends),
        fresh: false,
        checks: checks.clone(),
    })
}

/// Step 1: the third certificate of the quote is the policy's root, byte for byte.
fn root(quote: &Quote, policy: &Policy, checks: &mut Vec<Check>) -> Result<(), Refusal> {
    let anchor = policy.anchor();
    let [_, _, last] = quote.chain();
    if last == anchor.der() {
        passed(checks, "root", anchor.name(), anchor.name());
        return Ok(());
    }
    let found = Certificate::from_der(last).map_or_else(
        |_| "an unreadable root".to_owned(),
        |root| format!("another root, '{:#}'", subject(&root)),
    );
    let advice = match (policy.is_simulated(), last == INTEL_SGX_ROOT_CA) {
        (true, true) => {
            "this is a genuine platform, and the policy accepts a simulated one: leave out \
             insecure_simulated_root"
        }
        (true, false) => {
            "this is another simulated platform than the policy's: each is made with a root of its own, \
             whatever that calls itself; use the policy that was made with this platform"
        }
        (false, _) => {
            "this is not a genuine Intel platform; if this is a test, name its root in the policy \
             as insecure_simulated_root"
        }
    };
    Err(Refusal::new(Stage::Quote, "unknown-root", Matter::Policy)
        .found(format!("evidence signed under {found} ({})", fingerprint(last)))
        .expected(format!(
            "evidence signed under {} ({})",
            anchor.name(),
            fingerprint(anchor.der())
        ))
        .advice(advice))
}

/// What tells certificates apart that call themselves the same.
fn fingerprint(der: &[u8]) -> String {
    format!("SHA-256 {}", hex::encode(Sha256::digest(der)))
}

/// Step 2: the enclave or trust domain is a production one, quotes this key, and is named in the
/// policy. Returns the name the policy gives it.
fn program<'a>(
    evidence: &Evidence,
    policy: &'a Policy,
    now: u64,
    checks: &mut Vec<Check>,
) -> Result<&'a str, Refusal> {
    let quote = evidence.parsed();
    evidence.check_validity(now)?;
    let attributes = attributes::check(quote.report())?;
    passed(checks, "attributes", attributes.found, attributes.expected);
    checks.push(evidence.check_binding()?);
    let found = quote.measurements();
    let (name, expected) = policy.accepted(&found)?;
    passed(checks, "measurement", found.to_string(), expected);
    Ok(name)
}

/// Step 3: the collateral is in force at `now`, recent enough, and about this platform; neither it
/// nor the platform's certificates are revoked or expired.
fn in_force(
    quote: &Quote,
    collateral: &Collateral,
    policy: &Policy,
    now: u64,
    checks: &mut Vec<Check>,
) -> Result<(), Refusal> {
    for part in collateral.parts() {
        let name = part.name;
        if now < part.issued {
            return Err(stale("collateral-future", Matter::Clock)
                .found(format!("{name} issued at {}", date::show(part.issued)))
                .expected(format!("one issued before now, {}", date::show(now)))
                .advice(format!(
                    "our clock is at least {} slow: set it",
                    date::span(part.issued - now)
                )));
        }
        if now > part.next_update {
            return Err(stale("collateral-expired", Matter::Collateral)
                .found(format!("{name} that expired at {}", date::show(part.next_update)))
                .expected(format!("one in force now, at {}", date::show(now)))
                .advice(format!(
                    "it expired {} ago: fetch new collateral",
                    date::span(now - part.next_update)
                )));
        }
    }
    let age = now.saturating_sub(collateral.issued());
    let maximum = policy.maximum_collateral_age();
    if age > maximum {
        return Err(stale("collateral-stale", Matter::Collateral)
            .found(format!("collateral issued at {}", date::show(collateral.issued())))
            .expected(format!("issued at most {} before now", date::span(maximum)))
            .advice(format!(
                "it is {} old and may hide newer findings: fetch new collateral",
                date::span(age)
            )));
    }
    let (found, minimum) = (collateral.evaluation_number(), policy.minimum_evaluation_number());
    if minimum.is_some_and(|minimum| found < minimum) {
        return Err(stale("evaluation-number", Matter::Collateral)
            .found(format!("TCB info from evaluation {found}"))
            .expected(format!("evaluation {} or later", minimum.unwrap_or_default()))
            .advice("it does not cover newer findings: fetch new collateral"));
    }
    recent_lists(collateral, policy)?;
    passed(
        checks,
        "collateral",
        format!(
            "issued {}, in force until {}",
            date::show(collateral.issued()),
            date::show(collateral.expires())
        ),
        format!("in force at {} and at most {} old", date::show(now), date::span(maximum)),
    );
    same_platform(quote, collateral, checks)?;
    not_revoked(quote, collateral, now)
}

/// The revocation lists are as recent as the policy demands: until their next ones are due, older
/// ones stay in force, the root's for a year.
fn recent_lists(collateral: &Collateral, policy: &Policy) -> Result<(), Refusal> {
    let rule = policy.lists();
    let (root, pck) = (collateral.root_list(), collateral.pck_list());
    let older = |found: String, expected: String| {
        stale("revocation-list-old", Matter::Collateral)
            .found(found)
            .expected(expected)
            .advice("it does not name what was revoked since: fetch new collateral")
    };
    for (list, minimum) in [(root, rule.minimum_root_number), (pck, rule.minimum_pck_number)] {
        let Some(minimum) = minimum.filter(|minimum| list.number.is_none_or(|it| it < *minimum))
        else {
            continue;
        };
        let number = list.number.map_or_else(|| "without a number".to_owned(), |it| it.to_string());
        return Err(older(
            format!("{} number {number}", list.name),
            format!("number {minimum} or higher"),
        ));
    }
    match rule.root_issued_since {
        Some(since) if root.issued < since => Err(older(
            format!("{} issued at {}", root.name, date::show(root.issued)),
            format!("one issued at {} or later", date::show(since)),
        )),
        _ => Ok(()),
    }
}

/// The collateral is for the quote's technology and has the FMSPC and PCE id of the quote's PCK
/// certificate.
fn same_platform(
    quote: &Quote,
    collateral: &Collateral,
    checks: &mut Vec<Check>,
) -> Result<(), Refusal> {
    let [leaf, ..] = quote.chain();
    let pck = intel::parse_pck_extension(leaf).map_err(|error| {
        Refusal::new(Stage::Quote, "pck-extension", Matter::Platform)
            .found(format!("a PCK certificate whose SGX extension cannot be read: {error}"))
            .expected("an SGX extension with FMSPC, PCE id and TCB")
            .advice("register the peer's platform again")
    })?;
    let other = |field: &str, found: &[u8], expected: &[u8]| {
        Refusal::new(Stage::Collateral, "collateral-platform", Matter::Collateral)
            .found(format!("collateral for {field} {}", hex::encode(found)))
            .expected(format!("collateral for the peer's {field} {}", hex::encode(expected)))
            .advice("this collateral is for another platform: fetch the peer's")
    };
    if quote.tee() != collateral.tee() {
        let (found, expected) = (collateral.tee(), quote.tee());
        return Err(Refusal::new(Stage::Collateral, "collateral-technology", Matter::Collateral)
            .found(format!("collateral for {found}"))
            .expected(format!("collateral for {expected}, as the quote needs"))
            .advice(format!("fetch the peer's {expected} collateral")));
    }
    if pck.fmspc != collateral.fmspc() {
        return Err(other("FMSPC", collateral.fmspc(), &pck.fmspc));
    }
    if pck.pce_id != collateral.pce_id() {
        return Err(other("PCE id", collateral.pce_id(), &pck.pce_id));
    }
    let platform = format!("FMSPC {}, PCE id {}", hex::encode(pck.fmspc), hex::encode(&pck.pce_id));
    passed(checks, "platform", platform, "the collateral's FMSPC and PCE id");
    Ok(())
}

fn not_revoked(quote: &Quote, collateral: &Collateral, now: u64) -> Result<(), Refusal> {
    let [leaf, ca, _] = quote.chain();
    for (der, name, revoked) in [
        (leaf, "PCK certificate", Collateral::revokes_pck as fn(&Collateral, &[u8]) -> bool),
        (ca, "PCK CA certificate", Collateral::revokes_ca),
    ] {
        let certificate = Certificate::from_der(der).map_err(|error| {
            Refusal::new(Stage::Quote, "quote-form", Matter::Peer)
                .found(format!("a {name} that cannot be read: {error}"))
                .expected("an X.509 certificate")
                .advice("check who is answering")
        })?;
        let certificate = certificate.tbs_certificate();
        if revoked(collateral, certificate.serial_number().as_bytes()) {
            return Err(revocation(name));
        }
        let validity = certificate.validity();
        let begins = validity.not_before.to_unix_duration().as_secs();
        let ends = validity.not_after.to_unix_duration().as_secs();
        if !(begins..=ends).contains(&now) {
            return Err(Refusal::new(Stage::Signature, "platform-certificate", Matter::Platform)
                .found(format!(
                    "a {name} valid from {} to {}",
                    date::show(begins),
                    date::show(ends)
                ))
                .expected(format!("one valid now, at {}", date::show(now)))
                .advice("compare the clocks; if they agree, renew the platform's registration"));
        }
    }
    if collateral.revokes_tcb_signer() {
        return Err(revocation("signer of the TCB info"));
    }
    Ok(())
}

/// Step 4: signatures, chains, revocation lists, QE identity and TCB matching, by `dcap-qvl`.
fn signatures(
    quote: &Quote,
    collateral: &Collateral,
    policy: &Policy,
    now: u64,
    checks: &mut Vec<Check>,
) -> Result<QuoteClaims, Refusal> {
    let root = policy.anchor();
    let claims = QuoteVerifier::new(root.der().to_vec())
        .verify_with_policy(quote.bytes(), collateral.bundle(), now, &QuotePolicy::claims_only(now))
        .map_err(|error| {
            let found = format!("{error:#}");
            let told = format!("a library says {}", Untrusted::new(found.as_str()));
            if found.contains(DCAP_REVOKED) {
                return platform::refused_status("Revoked".to_owned(), policy);
            }
            if DCAP_QUOTING_ENCLAVE.iter().any(|beginning| found.contains(beginning)) {
                return Refusal::new(Stage::Signature, "quoting-enclave", Matter::Platform)
                    .found(told)
                    .expected("the quoting enclave that the collateral's QE identity describes")
                    .advice(
                        "fetch new collateral; if the error persists, the platform does not use \
                         Intel's quoting enclave, or uses one that is too old: refuse it",
                    );
            }
            Refusal::new(Stage::Signature, "signature", Matter::Peer)
                .found(told)
                .expected(format!("a chain of signatures from {} to the report", root.name()))
                .advice(
                    "either the evidence was altered or the collateral is for another platform: \
                     fetch new collateral; if the error persists, refuse this peer",
                )
        })?;
    passed(
        checks,
        "signatures",
        format!("root key {}", hex::encode(&claims.platform.root_key_id)),
        format!("signed under {}", root.name()),
    );
    Ok(claims)
}

/// How `dcap-qvl` 0.7.1 reports a revoked status, which it refuses by itself.
const DCAP_REVOKED: &str = "TCB status is invalid: Revoked";

/// How `dcap-qvl` 0.7.1 reports that the quoting enclave does not match the QE identity.
const DCAP_QUOTING_ENCLAVE: [&str; 6] = [
    "QE report validation failed",
    "QE MRSIGNER mismatch",
    "QE ISVPRODID mismatch",
    "QE MISCSELECT mismatch",
    "QE ATTRIBUTES mismatch",
    "QE ISVSVN ",
];

fn revocation(name: &str) -> Refusal {
    Refusal::new(Stage::Collateral, "revoked", Matter::Platform)
        .found(format!("a {name} on its issuer's revocation list"))
        .expected("certificates that are not revoked")
        .advice("the issuer no longer trusts its keys: refuse this platform")
}

fn stale(code: &'static str, matter: Matter) -> Refusal {
    Refusal::new(Stage::Collateral, code, matter)
}

fn passed(
    checks: &mut Vec<Check>,
    name: &'static str,
    found: impl Into<String>,
    expected: impl Into<String>,
) {
    checks.push(Check { name, found: found.into(), expected: expected.into() });
}
