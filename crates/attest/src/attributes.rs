//! Which attributes of an enclave or a trust domain are refused whatever the policy.

use crate::quote::{Report, sgx, td};
use crate::refusal::{Matter, Refusal, Stage};

/// What of an attribute word must be clear or set, and why.
struct Rule {
    bits: u64,
    set: bool,
    code: &'static str,
    found: &'static str,
    required: &'static str,
    advice: &'static str,
}

const ENCLAVE: [Rule; 5] = [
    Rule {
        bits: sgx::flags::DEBUG,
        set: false,
        code: "debug-enclave",
        found: "an enclave with DEBUG set",
        required: "DEBUG clear",
        advice: "its memory can be read by its host: set sgx.debug = false and sign it again",
    },
    Rule {
        bits: sgx::flags::INIT,
        set: true,
        code: "not-initialised",
        found: "an enclave that was not initialised (INIT clear)",
        required: "INIT set",
        advice: "its measurement was not final: refuse this peer",
    },
    Rule {
        bits: sgx::flags::MODE64,
        set: true,
        code: "mode64",
        found: "a 32-bit enclave (MODE64 clear)",
        required: "MODE64 set",
        advice: "no release of ours is one: refuse this peer",
    },
    Rule {
        bits: sgx::flags::PROVISION_KEY,
        set: false,
        code: "provision-key",
        found: "an enclave that may use the provisioning key (PROVISION_KEY set)",
        required: "PROVISION_KEY clear",
        advice: "remove the attribute from the enclave's manifest and sign it again",
    },
    Rule {
        bits: sgx::flags::EINITTOKEN_KEY,
        set: false,
        code: "einittoken-key",
        found: "a launch enclave (EINITTOKEN_KEY set)",
        required: "EINITTOKEN_KEY clear",
        advice: "remove the attribute from the enclave's manifest and sign it again",
    },
];

/// What a trust domain may have: defences, and processor features for its own use.
const HARMLESS: u64 = td::attributes::SEPT_VE_DISABLE
    | td::attributes::ICSSD
    | td::attributes::LASS
    | td::attributes::PKS
    | td::attributes::KL
    | td::attributes::PERFMON;

const DOMAIN: [Rule; 4] = [
    Rule {
        bits: td::attributes::DEBUG,
        set: false,
        code: "debug-domain",
        found: "a trust domain with DEBUG set",
        required: "DEBUG clear",
        advice: "its memory can be read by its host: start it without debugging",
    },
    Rule {
        bits: td::attributes::SEPT_VE_DISABLE,
        set: true,
        code: "sept-ve",
        found: "a trust domain with SEPT_VE_DISABLE clear",
        required: "SEPT_VE_DISABLE set",
        advice: "its host could take pages away unseen: start it with sept-ve-disable=on",
    },
    Rule {
        bits: td::attributes::MIGRATABLE,
        set: false,
        code: "migratable",
        found: "a trust domain that may be moved to another machine (MIGRATABLE set)",
        required: "MIGRATABLE clear",
        advice: "what it was measured on would not be where it runs: start it without migration",
    },
    Rule {
        bits: !HARMLESS,
        set: false,
        code: "td-attributes",
        found: "a trust domain with attributes that are reserved, for profiling or for services",
        required: "no other attribute than SEPT_VE_DISABLE, ICSSD, LASS, PKS, KL, PERFMON",
        advice: "no release of ours needs them: refuse this peer",
    },
];

/// What passed: the attributes, and what they had to be.
pub(crate) struct Passed {
    pub(crate) found: String,
    pub(crate) required: &'static str,
}

pub(crate) fn check(report: &Report) -> Result<Passed, Refusal> {
    let (word, rules, required) = match report {
        Report::Sgx(report) => (
            report.enclave.flags,
            ENCLAVE.as_slice(),
            "initialised, 64-bit, no debugging, no provisioning or launch key",
        ),
        Report::Tdx(report) => (
            report.domain.attributes,
            DOMAIN.as_slice(),
            "pages cannot be taken away unseen; no debugging, migration, profiling or services",
        ),
    };
    for rule in rules {
        if (word & rule.bits != 0) != rule.set {
            return Err(Refusal::new(Stage::Attributes, rule.code, Matter::Peer)
                .found(format!("{} (attributes {word:#x})", rule.found))
                .required(rule.required)
                .advice(rule.advice));
        }
    }
    Ok(Passed { found: format!("attributes {word:#04x}"), required })
}
