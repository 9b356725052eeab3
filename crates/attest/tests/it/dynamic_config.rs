//! `dynamic_config.json` with strict semantics: each test is one row of what the original reader
//! does otherwise.

use crate::kit::{NOW, code, collateral, enclave, evidence, platform};
use convelo_attest::{Policy, PolicyError, Refusal, verify};
use convelo_simulator::{CollateralKnobs, Enclave};

fn config() -> String {
    let enclave = enclave();
    format!(
        "{{\n\
         \"verify_mr_enclave\": \"on\",\n\
         \"verify_mr_signer\": \"on\",\n\
         \"verify_isv_prod_id\": \"on\",\n\
         \"verify_isv_svn\": \"on\",\n\
         \"sgx_mrs\": [\n\
         {{\n\
         \"mr_enclave\": \"{}\",\n\
         \"mr_signer\": \"{}\",\n\
         \"isv_prod_id\": \"3\",\n\
         \"isv_svn\": \"4\"\n\
         }}\n\
         ]\n\
         }}\n",
        hex::encode(enclave.mr_enclave),
        hex::encode(enclave.mr_signer)
    )
}

/// Judges an enclave by a configuration file, on the simulated platform.
fn judge(text: &str, enclave: &Enclave) -> Result<(), Refusal> {
    let policy = Policy::from_dynamic_config(text)
        .unwrap()
        .with_insecure_simulated_root(platform().root_pem())
        .unwrap();
    let collateral = collateral(&CollateralKnobs::default());
    verify(&evidence(enclave), &collateral, &policy, NOW).map(|_| ())
}

/// The config with one part replaced is refused at this line, with these words.
fn refused_at(from: &str, to: &str, line: usize, words: &str) {
    let text = config().replacen(from, to, 1);
    assert_ne!(text, config(), "{from}");
    let error = error(&text);
    assert!(error.message.contains(words), "{to}: {error}");
    assert_eq!(error.line, Some(line), "{to}: {error}");
    assert!(error.column.is_some_and(|column| column > 0), "{error}");
}

fn error(text: &str) -> PolicyError {
    Policy::from_dynamic_config(text).unwrap_err()
}

#[test]
fn the_documented_form_accepts_exactly_its_enclave() {
    judge(&config(), &enclave()).unwrap();
    for (other, expected) in [
        (Enclave { mr_enclave: [9; 32], ..enclave() }, "measurement"),
        (Enclave { mr_signer: [9; 32], ..enclave() }, "signer"),
        (Enclave { isv_prod_id: 9, ..enclave() }, "product"),
        (Enclave { isv_svn: 3, ..enclave() }, "isv-svn"),
    ] {
        assert_eq!(code(judge(&config(), &other)), expected);
    }
    let policy = Policy::from_dynamic_config(&config()).unwrap();
    assert!(!policy.is_simulated());
    assert!(policy.warnings().is_empty());
    assert_eq!(policy.to_json()["tcb_statuses"], serde_json::json!(["UpToDate"]));
}

#[test]
fn quoted_and_bare_numbers_mean_the_same() {
    let bare = config().replace("\"3\"", "3").replace("\"4\"", "4");
    assert_ne!(bare, config());
    assert_eq!(
        Policy::from_dynamic_config(&bare).unwrap(),
        Policy::from_dynamic_config(&config()).unwrap()
    );
    assert_eq!(code(judge(&config(), &Enclave { isv_prod_id: 0, ..enclave() })), "product");
}

#[test]
fn numbers_that_are_not_16_bit_numbers() {
    for bad in ["\"65536\"", "65536", "-1", "\"-1\"", "\"+3\"", "\" 3\"", "3.0", "\"0x3\"", "null"]
    {
        refused_at("\"3\"", bad, 10, "a number from 0 to 65535");
    }
}

#[test]
fn an_empty_switch() {
    refused_at("\"on\"", "\"\"", 2, "\"on\" or \"off\"");
}

#[test]
fn switches_in_any_case_and_as_booleans() {
    let other = Enclave { isv_prod_id: 9, ..enclave() };
    for on in ["\"ON\"", "\"On\"", "true"] {
        let text = switch("verify_isv_prod_id", on);
        assert_eq!(code(judge(&text, &other)), "product", "{on}");
    }
    for off in ["\"off\"", "\"OFF\"", "\"Off\"", "false"] {
        judge(&switch("verify_isv_prod_id", off), &other).unwrap();
    }
    for bad in ["\"yes\"", "\"1\"", "1", "null", "\"on \""] {
        refused_at("\"on\"", bad, 2, "\"on\" or \"off\"");
    }
}

#[test]
fn each_switch_governs_its_own_field() {
    for (name, other) in [
        ("verify_mr_enclave", Enclave { mr_enclave: [9; 32], ..enclave() }),
        ("verify_mr_signer", Enclave { mr_signer: [9; 32], ..enclave() }),
        ("verify_isv_prod_id", Enclave { isv_prod_id: 9, ..enclave() }),
        ("verify_isv_svn", Enclave { isv_svn: 0, ..enclave() }),
    ] {
        judge(&config(), &other).unwrap_err();
        judge(&switch(name, "\"off\""), &other).unwrap();
    }
}

#[test]
fn switches_after_the_list_count_as_well() {
    let mut lines: Vec<String> = config().lines().map(str::to_owned).collect();
    let switch = lines.remove(1).trim_end_matches(',').replace("on", "off");
    let end = lines.len() - 1;
    lines[end - 1] = "],".to_owned();
    lines.insert(end, switch);
    judge(&lines.join("\n"), &Enclave { mr_enclave: [9; 32], ..enclave() }).unwrap();
}

#[test]
fn short_hex_and_prefixed_hex() {
    let signer = hex::encode(enclave().mr_signer);
    refused_at(&signer, &signer[..62], 9, "62 characters");
    refused_at(&signer, &format!("0x{signer}"), 9, "0x prefix");
    refused_at(&signer, &format!("0x{}", &signer[..62]), 9, "0x prefix");
}

#[test]
fn the_shipped_template() {
    for (value, line) in
        [(hex::encode(enclave().mr_enclave), 12), (hex::encode(enclave().mr_signer), 12)]
    {
        refused_at(&value, "", line, "the shipped template leaves it empty");
    }
    refused_at(&hex::encode(enclave().mr_enclave), &"0".repeat(64), 8, "zeros");
}

#[test]
fn bad_hex_inside() {
    let good = hex::encode(enclave().mr_enclave);
    refused_at(&good, &format!("{}zz{}", &good[..20], &good[22..]), 8, "not hex");
}

#[test]
fn more_than_64_hex_digits() {
    let good = hex::encode(enclave().mr_enclave);
    refused_at(&good, &format!("{good}0"), 8, "65 characters");
    refused_at(&good, &format!("{good}00"), 8, "66 characters");
}

#[test]
fn upper_case_hex() {
    let good = hex::encode(enclave().mr_enclave);
    judge(&config().replace(&good, &good.to_uppercase()), &enclave()).unwrap();
}

#[test]
fn an_absent_switch_is_on() {
    let text = config().replace("\"verify_mr_signer\": \"on\",\n", "");
    assert_eq!(code(judge(&text, &Enclave { mr_signer: [9; 32], ..enclave() })), "signer");
    judge(&text, &enclave()).unwrap();
}

#[test]
fn an_absent_list() {
    let without = "{\n\"verify_mr_enclave\": \"on\"\n}";
    let error = error(without);
    assert!(error.message.contains("sgx_mrs is missing"), "{error}");
    assert_eq!(error.line, Some(3));
}

#[test]
fn an_absent_field() {
    refused_at(",\n\"isv_svn\": \"4\"", "", 11, "isv_svn is missing");
    let off = switch("verify_isv_svn", "\"off\"").replace(",\n\"isv_svn\": \"4\"", "");
    judge(&off, &enclave()).unwrap();
    let empty =
        switch("verify_mr_signer", "\"off\"").replace(&hex::encode(enclave().mr_signer), "");
    judge(&empty, &enclave()).unwrap();
}

#[test]
fn a_field_that_is_switched_off_is_still_read() {
    let text =
        switch("verify_mr_signer", "\"off\"").replace(&hex::encode(enclave().mr_signer), "0x12");
    assert!(error(&text).message.contains("0x prefix"));
}

#[test]
fn broken_json() {
    refused_at("\"on\",", "\"on\"", 3, "expected `,` or `}`");
    refused_at("]\n}\n", "]\n", 14, "EOF");
    refused_at("]\n}\n", "]\n}\n{}", 15, "trailing characters");
    for text in ["", "[]", "null", "\"on\""] {
        assert!(error(text).line.is_some());
    }
}

#[test]
fn keys_in_another_case() {
    let text = config()
        .replace("verify_mr_signer", "Verify_MR_Signer")
        .replace("svn\": \"4", "SVN\": \"4");
    let policy = Policy::from_dynamic_config(&text).unwrap();
    assert_eq!(policy.warnings().len(), 2, "{:?}", policy.warnings());
    assert!(policy.warnings()[0].contains("Verify_MR_Signer"));
    assert_eq!(code(judge(&text, &Enclave { mr_signer: [9; 32], ..enclave() })), "signer");
    judge(&text, &enclave()).unwrap();
}

#[test]
fn unknown_and_repeated_keys() {
    refused_at("verify_mr_signer", "verify_mrsigner", 3, "unknown field 'verify_mrsigner'");
    refused_at("verify_mr_signer", "verify_mr_enclave", 3, "appears twice");
    refused_at("verify_mr_signer", "VERIFY_mr_enclave", 3, "appears twice");
    refused_at("\"isv_svn\"", "\"isv_prod_id\"", 11, "appears twice");
    refused_at("\"isv_svn\"", "\"svn\"", 11, "unknown field 'svn'");
}

#[test]
fn a_missing_file_read_as_empty_text() {
    let error = error("");
    assert!(error.message.contains("EOF"), "{error}");
}

#[test]
fn every_entry_counts() {
    let entry = |number: u8| {
        format!(
            "{{\"mr_enclave\": \"{}\", \"mr_signer\": \"{}\", \"isv_prod_id\": 0, \"isv_svn\": 0}}",
            hex::encode([number; 32]),
            hex::encode([0xEE; 32])
        )
    };
    let list: Vec<String> = (1..=20).map(entry).collect();
    let text = format!("{{\"sgx_mrs\": [{}]}}", list.join(", "));
    for number in 1..=20 {
        let one = Enclave { mr_enclave: [number; 32], mr_signer: [0xEE; 32], ..Enclave::default() };
        judge(&text, &one).unwrap();
    }
    let none = Enclave { mr_enclave: [21; 32], mr_signer: [0xEE; 32], ..Enclave::default() };
    assert_eq!(code(judge(&text, &none)), "measurement");
}

#[test]
fn an_empty_list() {
    let error = error("{\"sgx_mrs\": []}");
    assert!(error.message.contains("sgx_mrs is empty"), "{error}");
}

#[test]
fn all_switches_off() {
    let text = config().replace("\"on\"", "\"off\"");
    assert!(error(&text).message.contains("anybody's code"), "{}", error(&text));
    let neither_measurement_nor_signer = switch("verify_mr_enclave", "\"off\"")
        .replace("\"verify_mr_signer\": \"on\"", "\"verify_mr_signer\": \"off\"");
    assert!(error(&neither_measurement_nor_signer).message.contains("anybody's code"));
}

#[test]
fn the_security_version_is_a_minimum_unless_equality_is_asked_for() {
    let higher = Enclave { isv_svn: 9, ..enclave() };
    judge(&config(), &higher).unwrap();
    let exact = Policy::from_dynamic_config(&config())
        .unwrap()
        .with_exact_isv_svn()
        .with_insecure_simulated_root(platform().root_pem())
        .unwrap();
    let collateral = collateral(&CollateralKnobs::default());
    assert_eq!(code(verify(&evidence(&higher), &collateral, &exact, NOW)), "isv-svn");
    verify(&evidence(&enclave()), &collateral, &exact, NOW).unwrap();
}

/// The config with this switch set to this JSON value.
fn switch(name: &str, value: &str) -> String {
    let text = config().replace(&format!("\"{name}\": \"on\""), &format!("\"{name}\": {value}"));
    assert!(text.contains(&format!("\"{name}\": {value}")));
    text
}
