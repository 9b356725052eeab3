//! One accepted program: which of its measurements must have which values.

use std::fmt;

use convelo_untrusted::shown;
use serde_json::{Map, Value};

use crate::measurements::{Measurements, SgxMeasurements, TdxMeasurements};

/// How a rule says that it ignores a field.
pub(crate) const ANY: &str = "any";

/// One accepted SGX enclave. `None` fields are not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EnclaveRule {
    pub(crate) name: String,
    pub(crate) mr_enclave: Option<[u8; 32]>,
    pub(crate) mr_signer: Option<[u8; 32]>,
    pub(crate) isv_prod_id: Option<u16>,
    pub(crate) isv_svn: Svn,
    pub(crate) allowed_xfrm: Option<u64>,
    pub(crate) allowed_misc_select: Option<u32>,
    pub(crate) config_id: Option<[u8; 64]>,
    pub(crate) minimum_config_svn: Option<u16>,
    pub(crate) isv_family_id: Option<[u8; 16]>,
    pub(crate) isv_ext_prod_id: Option<[u8; 16]>,
}

/// One accepted TDX trust domain. `None` fields are not compared; for `rtmr0` the policy has to say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DomainRule {
    pub(crate) name: String,
    pub(crate) mr_td: [u8; 48],
    pub(crate) rtmr: [Option<[u8; 48]>; 4],
    pub(crate) mr_config_id: Option<[u8; 48]>,
    pub(crate) mr_owner: Option<[u8; 48]>,
    pub(crate) mr_owner_config: Option<[u8; 48]>,
    pub(crate) allowed_td_attributes: Option<u64>,
    pub(crate) allowed_xfam: Option<u64>,
}

/// Which security versions of an enclave are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Svn {
    AtLeast(u16),
    Exactly(u16),
}

/// The first field in which a program differs from a rule. The higher the rank, the more fields
/// matched before it.
pub(crate) struct Mismatch {
    pub(crate) rank: usize,
    pub(crate) code: &'static str,
    pub(crate) found: String,
    pub(crate) expected: String,
}

/// A field of a rule, as it is compared, shown and written: a rule is the list of its fields.
struct Field {
    name: &'static str,
    code: &'static str,
    value: Required,
}

enum Required {
    /// These bytes and no others.
    Bytes(Vec<u8>),
    /// This number.
    Exactly(u16),
    /// This number or a higher one.
    AtLeast(u16),
    /// No bits but these; this many hexadecimal digits.
    Bits(u64, usize),
    /// Anything: written, but not compared.
    Any,
}

/// The program's measurement that a field is compared with.
enum Found<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

/// The fields of a rule, each with the measurement it is compared with.
type Fields<'a> = Vec<(Field, Option<Found<'a>>)>;

impl EnclaveRule {
    pub(crate) fn compare(&self, found: &SgxMeasurements) -> Result<(), Mismatch> {
        compare(&self.name, self.fields(Some(found)))
    }

    fn fields<'a>(&self, found: Option<&'a SgxMeasurements>) -> Fields<'a> {
        let mut fields = Fields::new();
        let mut put =
            |name, code, value: Option<Required>, at: fn(&'a SgxMeasurements) -> Found<'a>| {
                if let Some(value) = value {
                    fields.push((Field { name, code, value }, found.map(at)));
                }
            };
        put("mr_enclave", "measurement", bytes(self.mr_enclave), |f| Found::Bytes(&f.mr_enclave));
        put("mr_signer", "signer", bytes(self.mr_signer), |f| Found::Bytes(&f.mr_signer));
        let product = self.isv_prod_id.map_or(Required::Any, Required::Exactly);
        put("isv_prod_id", "product", Some(product), |f| Found::Number(f.isv_prod_id.into()));
        let (name, version) = match self.isv_svn {
            Svn::AtLeast(number) => ("minimum_isv_svn", Required::AtLeast(number)),
            Svn::Exactly(number) => ("isv_svn", Required::Exactly(number)),
        };
        put(name, "isv-svn", Some(version), |f| Found::Number(f.isv_svn.into()));
        let xfrm = self.allowed_xfrm.map(|bits| Required::Bits(bits, 16));
        put("allowed_xfrm", "xfrm", xfrm, |f| Found::Number(f.xfrm));
        let misc = self.allowed_misc_select.map(|bits| Required::Bits(bits.into(), 8));
        put("allowed_misc_select", "misc-select", misc, |f| Found::Number(f.misc_select.into()));
        put("config_id", "config-id", bytes(self.config_id), |f| Found::Bytes(&f.config_id));
        let version = self.minimum_config_svn.map(Required::AtLeast);
        put("minimum_config_svn", "config-svn", version, |f| Found::Number(f.config_svn.into()));
        let family = bytes(self.isv_family_id);
        put("isv_family_id", "family", family, |f| Found::Bytes(&f.isv_family_id));
        let product = bytes(self.isv_ext_prod_id);
        put("isv_ext_prod_id", "product", product, |f| Found::Bytes(&f.isv_ext_prod_id));
        fields
    }

    pub(crate) fn to_json(&self) -> Value {
        to_json(&self.name, self.fields(None))
    }

    pub(crate) fn to_toml(&self) -> Vec<String> {
        to_toml("enclave", &self.name, self.fields(None))
    }
}

impl DomainRule {
    pub(crate) fn compare(&self, found: &TdxMeasurements) -> Result<(), Mismatch> {
        compare(&self.name, self.fields(Some(found)))
    }

    fn fields<'a>(&self, found: Option<&'a TdxMeasurements>) -> Fields<'a> {
        let mut fields = Fields::new();
        let mut put =
            |name, code, value: Option<Required>, at: fn(&'a TdxMeasurements) -> Found<'a>| {
                if let Some(value) = value {
                    fields.push((Field { name, code, value }, found.map(at)));
                }
            };
        put("mr_td", "measurement", bytes(Some(self.mr_td)), |f| Found::Bytes(&f.mr_td));
        let [rtmr0, rtmr1, rtmr2, rtmr3] = self.rtmr.map(bytes);
        let rtmr0 = rtmr0.unwrap_or(Required::Any);
        put("rtmr0", "measurement", Some(rtmr0), |f| Found::Bytes(&f.rtmr[0]));
        put("rtmr1", "measurement", rtmr1, |f| Found::Bytes(&f.rtmr[1]));
        put("rtmr2", "measurement", rtmr2, |f| Found::Bytes(&f.rtmr[2]));
        put("rtmr3", "measurement", rtmr3, |f| Found::Bytes(&f.rtmr[3]));
        let config = bytes(self.mr_config_id);
        put("mr_config_id", "config-id", config, |f| Found::Bytes(&f.mr_config_id));
        put("mr_owner", "owner", bytes(self.mr_owner), |f| Found::Bytes(&f.mr_owner));
        let config = bytes(self.mr_owner_config);
        put("mr_owner_config", "owner", config, |f| Found::Bytes(&f.mr_owner_config));
        let bits = self.allowed_td_attributes.map(|bits| Required::Bits(bits, 16));
        put("allowed_td_attributes", "td-attributes", bits, |f| Found::Number(f.attributes));
        let bits = self.allowed_xfam.map(|bits| Required::Bits(bits, 16));
        put("allowed_xfam", "xfam", bits, |f| Found::Number(f.xfam));
        fields
    }

    pub(crate) fn to_json(&self) -> Value {
        to_json(&self.name, self.fields(None))
    }

    pub(crate) fn to_toml(&self) -> Vec<String> {
        to_toml("trust_domain", &self.name, self.fields(None))
    }
}

impl fmt::Display for EnclaveRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.name, &self.fields(None)))
    }
}

impl fmt::Display for DomainRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.name, &self.fields(None)))
    }
}

impl Default for Svn {
    fn default() -> Self {
        Self::AtLeast(0)
    }
}

impl Svn {
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::AtLeast(number) | Self::Exactly(number) => number,
        }
    }
}

impl Field {
    /// The name people know the measurement by: without `allowed_` and `minimum_`.
    fn found_name(&self) -> &'static str {
        let name = self.name.strip_prefix("allowed_").unwrap_or(self.name);
        name.strip_prefix("minimum_").unwrap_or(name)
    }
}

impl Required {
    fn accepts(&self, found: &Found<'_>) -> bool {
        match (self, found) {
            (Self::Any, _) => true,
            (Self::Bytes(bytes), Found::Bytes(found)) => bytes == found,
            (Self::Exactly(number), Found::Number(found)) => u64::from(*number) == *found,
            (Self::AtLeast(number), Found::Number(found)) => u64::from(*number) <= *found,
            (Self::Bits(bits, _), Found::Number(found)) => found & !bits == 0,
            _ => false,
        }
    }

    fn show(&self, found: &Found<'_>) -> String {
        match (self, found) {
            (_, Found::Bytes(bytes)) => hex::encode(bytes),
            (Self::Bits(_, digits), Found::Number(number)) => format!("{number:0digits$x}"),
            (_, Found::Number(number)) => number.to_string(),
        }
    }
}

impl fmt::Display for Required {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.write_str(&hex::encode(bytes)),
            Self::Exactly(number) => write!(f, "exactly {number}"),
            Self::AtLeast(number) => write!(f, "at least {number}"),
            Self::Bits(bits, digits) => write!(f, "no bit outside {bits:0digits$x}"),
            Self::Any => f.write_str(ANY),
        }
    }
}

impl Mismatch {
    /// A program of a kind that no rule is about.
    pub(crate) fn of_kind(found: &Measurements) -> Self {
        let (found, expected) = match found {
            Measurements::Sgx(_) => ("an SGX enclave", "a TDX trust domain"),
            Measurements::Tdx(_) => ("a TDX trust domain", "an SGX enclave"),
        };
        Self {
            rank: 0,
            code: "other-technology",
            found: found.to_owned(),
            expected: format!("{expected}, the only kind that the policy names"),
        }
    }
}

fn bytes<const N: usize>(value: Option<[u8; N]>) -> Option<Required> {
    value.map(|value| Required::Bytes(value.to_vec()))
}

fn compare(rule: &str, fields: Fields<'_>) -> Result<(), Mismatch> {
    for (rank, (field, found)) in fields.into_iter().enumerate() {
        let Some(found) = found else { continue };
        if !field.value.accepts(&found) {
            return Err(Mismatch {
                rank,
                code: field.code,
                found: format!("{} {}", field.found_name(), field.value.show(&found)),
                expected: format!("{} ({})", field.value, shown(rule)),
            });
        }
    }
    Ok(())
}

fn describe(rule: &str, fields: &Fields<'_>) -> String {
    let mut parts = vec![shown(rule)];
    parts.extend(fields.iter().map(|(field, _)| format!("{} {}", field.found_name(), field.value)));
    parts.join(", ")
}

fn to_json(rule: &str, fields: Fields<'_>) -> Value {
    let mut map = Map::from_iter([("name".to_owned(), rule.into())]);
    for (Field { name, value, .. }, _) in fields {
        let value: Value = match value {
            Required::Bytes(bytes) => hex::encode(bytes).into(),
            Required::Exactly(number) | Required::AtLeast(number) => number.into(),
            Required::Bits(bits, digits) => format!("{bits:0digits$x}").into(),
            Required::Any => ANY.into(),
        };
        map.insert(name.to_owned(), value);
    }
    map.into()
}

fn to_toml(table: &str, rule: &str, fields: Fields<'_>) -> Vec<String> {
    let name = toml::Value::String(rule.to_owned());
    let mut lines = vec![format!("[[{table}]]"), format!("name = {name}")];
    lines.extend(fields.into_iter().map(|(Field { name, value, .. }, _)| match value {
        Required::Bytes(bytes) => format!("{name} = \"{}\"", hex::encode(bytes)),
        Required::Exactly(number) | Required::AtLeast(number) => format!("{name} = {number}"),
        Required::Bits(bits, digits) => format!("{name} = \"{bits:0digits$x}\""),
        Required::Any => format!("{name} = \"{ANY}\""),
    }));
    lines
}
