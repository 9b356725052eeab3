//! The replaced system's `dynamic_config.json`, read strictly.
//!
//! ```json
//! {"verify_mr_enclave": "on", "verify_mr_signer": "on", "verify_isv_prod_id": "on",
//!  "verify_isv_svn": "on",
//!  "sgx_mrs": [{"mr_enclave": "64 hex", "mr_signer": "64 hex", "isv_prod_id": "0",
//!               "isv_svn": "0"}]}
//! ```
//!
//! An enclave is accepted if any entry matches in every field that is switched on. The original
//! reader disables checks or accepts zeros when it does not understand a value. This one differs:
//! quoted and bare numbers mean the same; switches are on or off in any case, or booleans, and a
//! missing one is on; measurements are exactly 64 hex digits; nothing may be missing, repeated or
//! unknown; an empty list is refused, and so is a file that checks neither measurement nor signer;
//! the security version is a minimum; every entry counts.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::rule::{EnclaveRule, Svn};
use super::{PolicyError, measurement};
use crate::text::json_message;

/// Reads the file into (accepted enclaves, warnings).
///
/// The switches may come after the list that they govern, so they are read first.
pub(crate) fn read(text: &str) -> Result<(Vec<EnclaveRule>, Vec<String>), PolicyError> {
    let mut switches = Switches::default();
    let mut warnings = Vec::new();
    let first = Pass::Switches(&mut switches);
    parse(text, &mut File { pass: first, warnings: &mut Vec::new() })?;
    if !switches.mr_enclave && !switches.mr_signer {
        return Err(PolicyError::unplaced(
            "verify_mr_enclave and verify_mr_signer are both off, so anybody's code would be \
             accepted: switch on at least one",
        ));
    }
    let mut rules = Vec::new();
    let second = Pass::Entries { switches, rules: &mut rules };
    parse(text, &mut File { pass: second, warnings: &mut warnings })?;
    Ok((rules, warnings))
}

#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the file")]
struct Switches {
    mr_enclave: bool,
    mr_signer: bool,
    isv_prod_id: bool,
    isv_svn: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self { mr_enclave: true, mr_signer: true, isv_prod_id: true, isv_svn: true }
    }
}

enum Pass<'a> {
    Switches(&'a mut Switches),
    Entries { switches: Switches, rules: &'a mut Vec<EnclaveRule> },
}

struct File<'a> {
    pass: Pass<'a>,
    warnings: &'a mut Vec<String>,
}

fn parse(text: &str, file: &mut File<'_>) -> Result<(), PolicyError> {
    let mut json = serde_json::Deserializer::from_str(text);
    file.deserialize(&mut json).and_then(|()| json.end()).map_err(|error| PolicyError {
        line: Some(error.line()),
        column: Some(error.column().max(1)),
        message: json_message(&error),
    })
}

const FIELDS: [&str; 5] =
    ["verify_mr_enclave", "verify_mr_signer", "verify_isv_prod_id", "verify_isv_svn", "sgx_mrs"];
const ENTRY_FIELDS: [&str; 4] = ["mr_enclave", "mr_signer", "isv_prod_id", "isv_svn"];

impl<'de> DeserializeSeed<'de> for &mut File<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut File<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with sgx_mrs and the four verify_ switches")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let name = field(&key, &FIELDS, &mut seen, self.warnings)?;
            match (&mut self.pass, name) {
                (Pass::Entries { switches, rules }, "sgx_mrs") => {
                    let switches = *switches;
                    map.next_value_seed(Entries { switches, rules, warnings: self.warnings })?;
                }
                (Pass::Switches(switches), name) if name != "sgx_mrs" => {
                    let Switch(on) = map.next_value()?;
                    match name {
                        "verify_mr_enclave" => switches.mr_enclave = on,
                        "verify_mr_signer" => switches.mr_signer = on,
                        "verify_isv_prod_id" => switches.isv_prod_id = on,
                        _ => switches.isv_svn = on,
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if !seen.contains(&"sgx_mrs") {
            return Err(de::Error::custom("the list sgx_mrs is missing"));
        }
        Ok(())
    }
}

struct Entries<'a> {
    switches: Switches,
    rules: &'a mut Vec<EnclaveRule>,
    warnings: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of accepted enclaves")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let name = |index: usize| format!("dynamic_config entry {}", index + 1);
        loop {
            let entry = Entry {
                switches: self.switches,
                name: name(self.rules.len()),
                warnings: self.warnings,
            };
            match list.next_element_seed(entry)? {
                Some(rule) => self.rules.push(rule),
                None if self.rules.is_empty() => {
                    return Err(de::Error::custom(
                        "sgx_mrs is empty, so every enclave would be refused: add an entry",
                    ));
                }
                None => return Ok(()),
            }
        }
    }
}

struct Entry<'a> {
    switches: Switches,
    name: String,
    warnings: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = EnclaveRule;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<EnclaveRule, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = EnclaveRule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with mr_enclave, mr_signer, isv_prod_id and isv_svn")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EnclaveRule, A::Error> {
        let mut seen = Vec::new();
        let (mut mr_enclave, mut mr_signer) = (None, None);
        let (mut isv_prod_id, mut isv_svn) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match field(&key, &ENTRY_FIELDS, &mut seen, self.warnings)? {
                "mr_enclave" => mr_enclave = map.next_value::<Measurement>()?.0,
                "mr_signer" => mr_signer = map.next_value::<Measurement>()?.0,
                "isv_prod_id" => isv_prod_id = map.next_value::<Number>()?.0,
                _ => isv_svn = map.next_value::<Number>()?.0,
            }
        }
        let minimum = required(self.switches.isv_svn, "isv_svn", isv_svn)?;
        Ok(EnclaveRule {
            mr_enclave: required(self.switches.mr_enclave, "mr_enclave", mr_enclave)?,
            mr_signer: required(self.switches.mr_signer, "mr_signer", mr_signer)?,
            isv_prod_id: required(self.switches.isv_prod_id, "isv_prod_id", isv_prod_id)?,
            isv_svn: Svn::AtLeast(minimum.unwrap_or(0)),
            name: self.name,
            ..EnclaveRule::default()
        })
    }
}

/// The value of a field whose switch is on, which must then be present; nothing if it is off.
fn required<T, E: de::Error>(on: bool, field: &str, value: Option<T>) -> Result<Option<T>, E> {
    match (on, value) {
        (false, _) => Ok(None),
        (true, Some(value)) => Ok(Some(value)),
        (true, None) => Err(E::custom(format!(
            "{field} is missing or empty although verify_{field} is on: fill it in (the shipped \
             template leaves it empty)"
        ))),
    }
}

/// The known field that a key names, in any case.
fn field<E: de::Error>(
    key: &str,
    known: &[&'static str],
    seen: &mut Vec<&'static str>,
    warnings: &mut Vec<String>,
) -> Result<&'static str, E> {
    let Some(&name) = known.iter().find(|name| name.eq_ignore_ascii_case(key)) else {
        return Err(E::custom(format!(
            "unknown field '{}', expected one of {}",
            key.escape_debug().take(64).collect::<String>(),
            known.join(", ")
        )));
    };
    if seen.contains(&name) {
        return Err(E::custom(format!("{name} appears twice")));
    }
    seen.push(name);
    if name != key {
        warnings.push(format!("field '{key}' is read as '{name}'"));
    }
    Ok(name)
}

/// `"on"` or `"off"` in any case, or a boolean.
struct Switch(bool);

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnOrOff;
        impl Visitor<'_> for OnOrOff {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"on\" or \"off\"")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Switch, E> {
                Ok(Switch(on))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Switch, E> {
                if text.eq_ignore_ascii_case("on") {
                    Ok(Switch(true))
                } else if text.eq_ignore_ascii_case("off") {
                    Ok(Switch(false))
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
        }
        deserializer.deserialize_any(OnOrOff)
    }
}

/// 0 to 65535, quoted or not; nothing for `""`.
struct Number(Option<u16>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct QuotedOrNot;
        impl Visitor<'_> for QuotedOrNot {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 65535, quoted or not")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
                u16::try_from(number)
                    .map(|number| Number(Some(number)))
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                if text.is_empty() {
                    return Ok(Number(None));
                }
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse() {
                    Ok(number) if digits => Ok(Number(Some(number))),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(QuotedOrNot)
    }
}

/// Exactly 64 hex digits; nothing for `""`.
struct Measurement(Option<[u8; 32]>);

impl<'de> Deserialize<'de> for Measurement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        measurement(&text).map(|value| Self(Some(value))).map_err(de::Error::custom)
    }
}
