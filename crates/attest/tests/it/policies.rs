//! Policy files: what is read, what is refused, and where.

use crate::kit::{enclave, platform, policy};
use convelo_attest::{MAXIMUM_POLICY_BYTES, Policy, PolicyError};
use serde_json::json;

const A: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const B: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";

fn full() -> String {
    format!(
        "version = 1\n\
         tcb_statuses = [\"UpToDate\", \"SWHardeningNeeded\"]\n\
         advisories = [\"INTEL-SA-00615\"]\n\
         maximum_collateral_age_days = 5\n\
         [[enclave]]\n\
         name = \"one\"\n\
         mr_enclave = \"{A}\"\n\
         mr_signer = \"{B}\"\n\
         isv_prod_id = 7\n\
         minimum_isv_svn = 2\n\
         [[enclave]]\n\
         name = \"two\"\n\
         mr_signer = \"{B}\"\n\
         isv_prod_id = \"any\"\n\
         isv_svn = 3\n"
    )
}

#[test]
fn a_full_policy_means_the_same_as_toml_and_as_json() {
    let policy = Policy::from_toml(&full()).unwrap();
    assert_eq!(
        policy.to_json(),
        json!({
            "version": 1,
            "tcb_statuses": ["UpToDate", "SWHardeningNeeded"],
            "advisories": ["INTEL-SA-00615"],
            "maximum_collateral_age_days": 5,
            "enclave": [
                {
                    "name": "one", "mr_enclave": A, "mr_signer": B,
                    "isv_prod_id": 7, "minimum_isv_svn": 2
                },
                { "name": "two", "mr_signer": B, "isv_prod_id": "any", "isv_svn": 3 },
            ],
        })
    );
    let again = Policy::from_json(&policy.to_json()).unwrap();
    assert_eq!(again, policy);
    assert_eq!(again.digest(), policy.digest());
    assert!(!policy.is_simulated());
    let lines = policy.describe().join("\n");
    for part in [
        A,
        B,
        "isv_prod_id exactly 7",
        "isv_prod_id any",
        "at least 2",
        "exactly 3",
        "INTEL-SA-00615",
        "5 days",
    ] {
        assert!(lines.contains(part), "{lines}");
    }
}

#[test]
fn the_defaults_are_strict() {
    let policy = Policy::from_toml(&minimal()).unwrap();
    assert_eq!(
        policy.to_json(),
        json!({
            "version": 1,
            "tcb_statuses": ["UpToDate"],
            "advisories": [],
            "maximum_collateral_age_days": 7,
            "enclave": [{
                "name": "one", "mr_enclave": A, "isv_prod_id": "any", "minimum_isv_svn": 0
            }],
        })
    );
}

#[test]
fn every_difference_changes_the_digest() {
    let one = Policy::from_toml(&full()).unwrap();
    for (from, to) in [
        (", \"SWHardeningNeeded\"", ""),
        ("00615", "00616"),
        ("days = 5", "days = 6"),
        (A, B),
        ("isv_prod_id = 7", "isv_prod_id = 8"),
        ("minimum_isv_svn = 2", "isv_svn = 2"),
        ("\"one\"", "\"another\""),
    ] {
        let other = Policy::from_toml(&full().replacen(from, to, 1)).unwrap();
        assert_ne!(other.digest(), one.digest(), "{from}");
    }
    let reordered = full().replace(
        "[\"UpToDate\", \"SWHardeningNeeded\"]",
        "[\"SWHardeningNeeded\", \"UpToDate\", \"UpToDate\"]",
    );
    assert_eq!(Policy::from_toml(&reordered).unwrap().digest(), one.digest());
}

#[test]
fn errors_say_where_and_what() {
    for (from, to, line, column, message) in [
        ("version = 1", "version = 2", 1, 11, "version 2"),
        ("version = 1", "version = ", 1, 11, "value"),
        ("version = 1\n", "", 1, 1, "missing field `version`"),
        ("\"UpToDate\"", "\"Revoked\"", 2, 17, "unknown variant `Revoked`"),
        ("[\"UpToDate\", \"SWHardeningNeeded\"]", "[]", 2, 16, "no TCB status"),
        ("\"INTEL-SA-00615\"", "\"SA-615\"", 3, 15, "of the form INTEL-SA-00615"),
        ("days = 5", "days = 0", 4, 31, "expected 1 to 30"),
        ("days = 5", "days = 31", 4, 31, "expected 1 to 30"),
        ("maximum_collateral", "minimum_collateral", 4, 1, "unknown field"),
        ("name = \"one\"", "name = \"\"", 5, 1, "1 to 64 bytes"),
        (A, "0x0a", 7, 14, "0x prefix"),
        (A, "0a", 7, 14, "2 characters"),
        ("0a0a\"", "0a0g\"", 7, 14, "not hex"),
        (A, &"0".repeat(64), 7, 14, "zeros"),
        (A, &format!("{A}0a"), 7, 14, "66 characters"),
        ("isv_prod_id = 7", "isv_prod_id = 65536", 9, 15, "0 to 65535"),
        ("isv_prod_id = 7", "isv_prod_id = -1", 9, 15, "0 to 65535"),
        ("isv_prod_id = 7", "isv_prod_id = \"all\"", 9, 15, "\"any\""),
        ("svn = 2", "svn = 2\nisv_svn = 2", 5, 1, "both"),
        ("svn = 2", "svn = 70000", 10, 19, "u16"),
    ] {
        let text = full().replacen(from, to, 1);
        assert_ne!(text, full(), "{from}");
        let error = Policy::from_toml(&text).unwrap_err();
        assert!(error.message.contains(message), "{to}: {error}");
        assert_eq!((error.line, error.column), (Some(line), Some(column)), "{to}: {error}");
        assert!(error.to_string().starts_with(&format!("policy, line {line}, column {column}: ")));
    }
}

#[test]
fn an_enclave_that_anybody_could_be_is_refused() {
    let error = refused(&minimal().replace(&format!("mr_enclave = \"{A}\"\n"), ""));
    assert!(error.message.contains("neither mr_enclave nor mr_signer"), "{error}");
    for missing in ["isv_prod_id = \"any\"\n", "isv_svn = 3\n"] {
        let error = refused(&full().replace(missing, ""));
        assert!(error.message.contains("only by its signer"), "{error}");
        assert_eq!(error.line, Some(11), "{error}");
    }
}

#[test]
fn a_policy_without_enclaves_is_refused() {
    assert!(refused("version = 1\nenclave = []\n").message.contains("[[enclave]]"));
    assert!(refused("version = 1\n").message.contains("enclave"));
}

#[test]
fn the_simulated_root_is_named_on_purpose() {
    let simulated = policy();
    assert!(simulated.is_simulated());
    assert_eq!(Policy::from_json(&simulated.to_json()).unwrap(), simulated);
    let genuine = Policy::from_toml(&minimal()).unwrap();
    let changed = genuine.clone().with_insecure_simulated_root(platform().root_pem()).unwrap();
    assert!(changed.is_simulated());
    assert_ne!(changed.digest(), genuine.digest());
}

#[test]
fn what_is_not_a_simulated_root_is_refused() {
    let genuine = Policy::from_toml(&minimal()).unwrap();
    let with = |pem: &str| genuine.clone().with_insecure_simulated_root(pem).unwrap_err().message;
    assert!(with("").contains("not one certificate"));
    let key = platform().root_pem().replace("CERTIFICATE", "PUBLIC KEY");
    assert!(with(&key).contains("PUBLIC KEY"));
    let twice = platform().root_pem().repeat(2);
    assert!(with(&twice).contains("not one certificate"));
    let quote = std::fs::read(crate::kit::vector("quotes/sgx_quote")).unwrap();
    let chain = String::from_utf8_lossy(&quote).into_owned();
    let start = chain.rfind("-----BEGIN CERTIFICATE-----").unwrap();
    let intel = chain[start..].trim_end_matches('\0');
    assert!(with(intel).contains("Intel's own root"));
}

#[test]
fn the_simulators_policy_accepts_odd_names() {
    let name = "the \"service\" \\ 0.1";
    let toml = convelo_simulator::policy_toml(&platform(), &[(name, &enclave())]);
    let policy = Policy::from_toml(&toml).unwrap();
    assert_eq!(policy.to_json()["enclave"][0]["name"], name);
}

#[test]
fn an_oversize_policy_is_refused() {
    let long = format!("{}#{}", minimal(), "x".repeat(MAXIMUM_POLICY_BYTES));
    assert!(refused(&long).message.contains("at most"));
}

fn minimal() -> String {
    format!("version = 1\n[[enclave]]\nname = \"one\"\nmr_enclave = \"{A}\"\n")
}

fn refused(text: &str) -> PolicyError {
    Policy::from_toml(text).unwrap_err()
}
