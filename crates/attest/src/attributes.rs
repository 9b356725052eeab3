//! Which attributes of an enclave or trust domain every policy refuses.

use crate::quote::{Report, sgx, td};
use crate::refusal::{Matter, Refusal, Stage};

/// Which bits of an attribute word must be clear or set, and why.
struct Rule {
    bits: u64,
    set: bool,
    code: &'static str,
    found: &'static str,
    expected: &'static str,
    advice: &'static str,
}

const ENCLAVE: [Rule; 5] = [
    Rule {
        bits: sgx::flags::DEBUG,
        set: false,
        code: "debug-enclave",
        found: "an enclave with DEBUG set",
        expected: "DEBUG clear",
        advice: "its host can read its memory: set sgx.debug = false and sign it again",
    },
    Rule {
        bits: sgx::flags::INIT,
        set: true,
        code: "not-initialised",
        found: "an enclave that was not initialised (INIT clear)",
        expected: "INIT set",
        advice: "its measurement was not final: refuse this peer",
    },
    Rule {
        bits: sgx::flags::MODE64,
        set: true,
        code: "mode64",
        found: "a 32-bit enclave (MODE64 clear)",
        expected: "MODE64 set",
        advice: "none of our releases is 32-bit: refuse this peer",
    },
    Rule {
        bits: sgx::flags::PROVISION_KEY,
        set: false,
        code: "provision-key",
        found: "an enclave that may use the provisioning key (PROVISION_KEY set)",
        expected: "PROVISION_KEY clear",
        advice: "remove the attribute from the enclave's manifest and sign it again",
    },
    Rule {
        bits: sgx::flags::EINITTOKEN_KEY,
        set: false,
        code: "einittoken-key",
        found: "a launch enclave (EINITTOKEN_KEY set)",
        expected: "EINITTOKEN_KEY clear",
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
        expected: "DEBUG clear",
        advice: "its host can read its memory: start it without debugging",
    },
    Rule {
        bits: td::attributes::SEPT_VE_DISABLE,
        set: true,
        code: "sept-ve",
        found: "a trust domain with SEPT_VE_DISABLE clear",
        expected: "SEPT_VE_DISABLE set",
        advice: "its host could remove pages unnoticed: start it with sept-ve-disable=on",
    },
    Rule {
        bits: td::attributes::MIGRATABLE,
        set: false,
        code: "migratable",
        found: "a trust domain that may be moved to another machine (MIGRATABLE set)",
        expected: "MIGRATABLE clear",
        advice: "it might not run where it was measured: start it without migration",
    },
    Rule {
        bits: !HARMLESS,
        set: false,
        code: "td-attributes",
        found: "a trust domain with attributes that are reserved, or for profiling or services",
        expected: "no attributes but SEPT_VE_DISABLE, ICSSD, LASS, PKS, KL, PERFMON",
        advice: "none of our releases needs them: refuse this peer",
    },
];

/// What passed: the attributes, and what they had to be.
pub(crate) struct Passed {
    pub(crate) found: String,
    pub(crate) expected: &'static str,
}

pub(crate) fn check(report: &Report) -> Result<Passed, Refusal> {
    let (word, rules, expected) = match report {
        Report::Sgx(report) => (
            report.enclave.flags,
            ENCLAVE.as_slice(),
            "initialised, 64-bit, no debugging, no provisioning or launch key",
        ),
        Report::Tdx(report) => (
            report.domain.attributes,
            DOMAIN.as_slice(),
            "pages cannot be removed unnoticed; no debugging, migration, profiling or services",
        ),
    };
    for rule in rules {
        if (word & rule.bits != 0) != rule.set {
            return Err(Refusal::new(Stage::Attributes, rule.code, Matter::Peer)
                .found(format!("{} (attributes {word:#x})", rule.found))
                .expected(rule.expected)
                .advice(rule.advice));
        }
    }
    Ok(Passed { found: format!("attributes {word:#04x}"), expected })
}
