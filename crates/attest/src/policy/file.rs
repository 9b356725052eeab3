//! The file form of a policy, read field by field, with the position of anything wrong.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::rule::{ANY, DomainRule, EnclaveRule, Svn};
use super::{
    Anchor, ListRule, PlatformRule, Policy, PolicyError, TcbStatus, default_statuses, digits,
    measurement,
};
use crate::date;
use crate::evidence::CertificateRules;
use crate::limits::{
    DEFAULT_COLLATERAL_AGE_DAYS, LONGEST_CERTIFICATE_DAYS, LONGEST_COLLATERAL_AGE_DAYS,
    LONGEST_GRACE_PERIOD_DAYS, MAXIMUM_NAME_BYTES, SECONDS_PER_DAY,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[expect(dead_code, reason = "its conversion checks it")]
    version: Version,
    #[serde(default)]
    tcb_statuses: Statuses,
    #[serde(default)]
    advisories: Vec<Advisory>,
    #[serde(default)]
    maximum_collateral_age_days: Age,
    minimum_evaluation_number: Option<u32>,
    minimum_root_crl_number: Option<u64>,
    minimum_pck_crl_number: Option<u64>,
    root_crl_issued_since: Option<Day>,
    #[serde(default)]
    platforms: Platforms,
    #[serde(default)]
    insecure_simulated_root: Root,
    #[serde(default)]
    grace_period_days: Grace,
    allow_cached_keys: Option<bool>,
    allow_dynamic_platform: Option<bool>,
    allow_smt: Option<bool>,
    longest_certificate_days: Option<CertificateDays>,
    allow_legacy_evidence: Option<bool>,
    #[serde(default)]
    enclave: Vec<Enclave>,
    #[serde(default)]
    trust_domain: Vec<Domain>,
}

impl TryFrom<File> for Policy {
    type Error = PolicyError;

    fn try_from(file: File) -> Result<Self, PolicyError> {
        if file.enclave.is_empty() && file.trust_domain.is_empty() {
            return Err(PolicyError::unplaced(
                "no program is accepted: add an [[enclave]] or [[trust_domain]] table",
            ));
        }
        let mut tcb_statuses = file.tcb_statuses.0;
        tcb_statuses.sort_unstable();
        tcb_statuses.dedup();
        let mut advisories: Vec<String> = file.advisories.into_iter().map(|id| id.0).collect();
        advisories.sort_unstable();
        advisories.dedup();
        let (usual, rules) = (PlatformRule::default(), CertificateRules::default());
        Ok(Self {
            anchor: file.insecure_simulated_root.0,
            tcb_statuses,
            advisories,
            maximum_collateral_age_days: file.maximum_collateral_age_days.0,
            minimum_evaluation_number: file.minimum_evaluation_number,
            lists: ListRule {
                minimum_root_number: file.minimum_root_crl_number,
                minimum_pck_number: file.minimum_pck_crl_number,
                root_issued_since: file.root_crl_issued_since.map(|day| day.0),
            },
            platforms: file.platforms.0,
            platform: PlatformRule {
                allow_cached_keys: file.allow_cached_keys.unwrap_or(usual.allow_cached_keys),
                allow_dynamic_platform: file
                    .allow_dynamic_platform
                    .unwrap_or(usual.allow_dynamic_platform),
                allow_smt: file.allow_smt.unwrap_or(usual.allow_smt),
            },
            grace_period_days: file.grace_period_days.0,
            enclaves: file.enclave.into_iter().map(|enclave| enclave.0).collect(),
            trust_domains: file.trust_domain.into_iter().map(|domain| domain.0).collect(),
            certificate_rules: CertificateRules {
                maximum_lifetime_seconds: file
                    .longest_certificate_days
                    .map_or(rules.maximum_lifetime_seconds, |days| days.0 * SECONDS_PER_DAY),
                allow_legacy_evidence: file.allow_legacy_evidence.unwrap_or_default(),
                ..rules
            },
            warnings: Vec::new(),
        })
    }
}

/// A date in the one form of collateral, in Unix seconds.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Day(u64);

impl TryFrom<String> for Day {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        date::parse(&text).map(Self).ok_or_else(|| {
            format!("'{}' is no date, expected \"2026-02-26T13:04:00Z\"", text.escape_debug())
        })
    }
}

#[derive(Deserialize)]
#[serde(try_from = "u64")]
struct Version;

impl TryFrom<u64> for Version {
    type Error = String;

    fn try_from(version: u64) -> Result<Self, String> {
        match version {
            1 => Ok(Self),
            other => Err(format!("policy version {other}, expected version 1")),
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "Vec<TcbStatus>")]
struct Statuses(Vec<TcbStatus>);

impl TryFrom<Vec<TcbStatus>> for Statuses {
    type Error = &'static str;

    fn try_from(statuses: Vec<TcbStatus>) -> Result<Self, Self::Error> {
        if statuses.is_empty() {
            return Err("no TCB status is accepted, hence no platform: name \"UpToDate\"");
        }
        Ok(Self(statuses))
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self(default_statuses())
    }
}

/// Array elements check themselves inside their own visitor, because an error from there carries
/// the element's position, and one from `try_from` only the array's.
struct Advisory(String);

impl<'de> Deserialize<'de> for Advisory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Id;
        impl Visitor<'_> for Id {
            type Value = Advisory;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an advisory of the form INTEL-SA-00615")
            }

            fn visit_str<E: de::Error>(self, id: &str) -> Result<Advisory, E> {
                match id.strip_prefix("INTEL-SA-").map(str::as_bytes) {
                    Some(number) if number.len() == 5 && number.iter().all(u8::is_ascii_digit) => {
                        Ok(Advisory(id.to_owned()))
                    }
                    _ => Err(E::invalid_value(de::Unexpected::Str(id), &self)),
                }
            }
        }
        deserializer.deserialize_str(Id)
    }
}

#[derive(Default, Deserialize)]
#[serde(try_from = "Vec<Measurement<32>>")]
struct Platforms(Vec<[u8; 32]>);

impl TryFrom<Vec<Measurement<32>>> for Platforms {
    type Error = &'static str;

    fn try_from(platforms: Vec<Measurement<32>>) -> Result<Self, Self::Error> {
        if platforms.is_empty() {
            return Err("an empty list of platforms accepts none: leave it out to accept any");
        }
        let mut platforms: Vec<_> = platforms.into_iter().map(|platform| platform.0).collect();
        platforms.sort_unstable();
        platforms.dedup();
        Ok(Self(platforms))
    }
}

#[derive(Deserialize)]
#[serde(try_from = "u64")]
struct Age(u64);

impl TryFrom<u64> for Age {
    type Error = String;

    fn try_from(days: u64) -> Result<Self, String> {
        if (1..=LONGEST_COLLATERAL_AGE_DAYS).contains(&days) {
            Ok(Self(days))
        } else {
            Err(format!("{days} days, expected 1 to {LONGEST_COLLATERAL_AGE_DAYS}"))
        }
    }
}

impl Default for Age {
    fn default() -> Self {
        Self(DEFAULT_COLLATERAL_AGE_DAYS)
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Root(Anchor);

impl TryFrom<String> for Root {
    type Error = String;

    fn try_from(pem: String) -> Result<Self, String> {
        Anchor::simulated(&pem).map(Self)
    }
}

impl Default for Root {
    fn default() -> Self {
        Self(Anchor::Intel)
    }
}

#[derive(Default, Deserialize)]
#[serde(try_from = "u64")]
struct Grace(u64);

impl TryFrom<u64> for Grace {
    type Error = String;

    fn try_from(days: u64) -> Result<Self, String> {
        if days <= LONGEST_GRACE_PERIOD_DAYS {
            Ok(Self(days))
        } else {
            Err(format!("{days} days, expected at most {LONGEST_GRACE_PERIOD_DAYS}"))
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "u64")]
struct CertificateDays(u64);

impl TryFrom<u64> for CertificateDays {
    type Error = String;

    fn try_from(days: u64) -> Result<Self, String> {
        if (1..=LONGEST_CERTIFICATE_DAYS).contains(&days) {
            Ok(Self(days))
        } else {
            Err(format!("{days} days, expected 1 to {LONGEST_CERTIFICATE_DAYS}"))
        }
    }
}

struct Enclave(EnclaveRule);

impl<'de> Deserialize<'de> for Enclave {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Enclave;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a table with name, mr_enclave, mr_signer, isv_prod_id, minimum_isv_svn",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Enclave, A::Error> {
                let fields = EnclaveFields::deserialize(MapAccessDeserializer::new(map))?;
                Enclave::try_from(fields).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_map(Table)
    }
}

struct Domain(DomainRule);

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Domain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with name, mr_td, rtmr0, rtmr1, rtmr2")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Domain, A::Error> {
                let fields = DomainFields::deserialize(MapAccessDeserializer::new(map))?;
                Domain::try_from(fields).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_map(Table)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DomainFields {
    name: String,
    mr_td: Option<Measurement<48>>,
    rtmr0: Option<Configuration>,
    rtmr1: Option<Digits<48>>,
    rtmr2: Option<Digits<48>>,
    rtmr3: Option<Digits<48>>,
    mr_config_id: Option<Digits<48>>,
    mr_owner: Option<Digits<48>>,
    mr_owner_config: Option<Digits<48>>,
    allowed_td_attributes: Option<Digits<8>>,
    allowed_xfam: Option<Digits<8>>,
}

impl TryFrom<DomainFields> for Domain {
    type Error = String;

    fn try_from(fields: DomainFields) -> Result<Self, String> {
        let name = program_name(fields.name)?;
        let rtmr = [fields.rtmr1, fields.rtmr2, fields.rtmr3];
        let [rtmr1, rtmr2, rtmr3] = rtmr.map(|value| value.map(|value| value.0));
        let (Some(mr_td), Some(Configuration(rtmr0)), Some(_), Some(_)) =
            (fields.mr_td, fields.rtmr0, rtmr1, rtmr2)
        else {
            return Err(format!(
                "trust domain '{name}' needs mr_td, rtmr0, rtmr1 and rtmr2: they measure the firmware, \
                 its configuration, the kernel and what the kernel is started with, and whatever is not \
                 measured could be anybody's; rtmr0 = \"any\" accepts whatever tables and devices the \
                 host gives the virtual machine"
            ));
        };
        let rtmr = [rtmr0, rtmr1, rtmr2, rtmr3];
        Ok(Self(DomainRule {
            name,
            mr_td: mr_td.0,
            rtmr,
            mr_config_id: fields.mr_config_id.map(|value| value.0),
            mr_owner: fields.mr_owner.map(|value| value.0),
            mr_owner_config: fields.mr_owner_config.map(|value| value.0),
            allowed_td_attributes: fields.allowed_td_attributes.map(Digits::number),
            allowed_xfam: fields.allowed_xfam.map(Digits::number),
        }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnclaveFields {
    name: String,
    mr_enclave: Option<Measurement<32>>,
    mr_signer: Option<Measurement<32>>,
    isv_prod_id: Option<Product>,
    minimum_isv_svn: Option<u16>,
    isv_svn: Option<u16>,
    allowed_xfrm: Option<Digits<8>>,
    allowed_misc_select: Option<Digits<4>>,
    config_id: Option<Digits<64>>,
    minimum_config_svn: Option<u16>,
    isv_family_id: Option<Digits<16>>,
    isv_ext_prod_id: Option<Digits<16>>,
}

impl TryFrom<EnclaveFields> for Enclave {
    type Error = String;

    fn try_from(fields: EnclaveFields) -> Result<Self, String> {
        let name = program_name(fields.name)?;
        if fields.mr_enclave.is_none() && fields.mr_signer.is_none() {
            return Err(format!(
                "enclave '{name}' has neither mr_enclave nor mr_signer, so anybody's code would \
                 be accepted: give at least one"
            ));
        }
        let isv_svn = match (fields.minimum_isv_svn, fields.isv_svn) {
            (Some(_), Some(_)) => {
                return Err(format!("enclave '{name}' has both minimum_isv_svn and isv_svn"));
            }
            (Some(number), None) => Svn::AtLeast(number),
            (None, Some(number)) => Svn::Exactly(number),
            (None, None) if fields.mr_enclave.is_some() => Svn::AtLeast(0),
            (None, None) => return Err(signer_alone(&name, "minimum_isv_svn")),
        };
        let isv_prod_id = match fields.isv_prod_id {
            Some(Product(id)) => id,
            None if fields.mr_enclave.is_some() => None,
            None => return Err(signer_alone(&name, "isv_prod_id")),
        };
        Ok(Self(EnclaveRule {
            name,
            mr_enclave: fields.mr_enclave.map(|value| value.0),
            mr_signer: fields.mr_signer.map(|value| value.0),
            isv_prod_id,
            isv_svn,
            allowed_xfrm: fields.allowed_xfrm.map(Digits::number),
            allowed_misc_select: fields.allowed_misc_select.map(|bits| u32::from_be_bytes(bits.0)),
            config_id: fields.config_id.map(|value| value.0),
            minimum_config_svn: fields.minimum_config_svn,
            isv_family_id: fields.isv_family_id.map(|value| value.0),
            isv_ext_prod_id: fields.isv_ext_prod_id.map(|value| value.0),
        }))
    }
}

fn program_name(name: String) -> Result<String, String> {
    if name.is_empty() || name.len() > MAXIMUM_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(format!(
            "a name must have 1 to {MAXIMUM_NAME_BYTES} bytes and no control characters"
        ));
    }
    Ok(name)
}

fn signer_alone(name: &str, field: &str) -> String {
    format!(
        "enclave '{name}' is identified only by its signer, who signs many: give {field} as well, \
         or the mr_enclave"
    )
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Measurement<const N: usize>([u8; N]);

impl<const N: usize> TryFrom<String> for Measurement<N> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        measurement(&text).map(Self)
    }
}

/// Bytes in which zeros are meaningful.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Digits<const N: usize>([u8; N]);

impl<const N: usize> TryFrom<String> for Digits<N> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        digits("value", &text).map(Self)
    }
}

/// What the host configures of a virtual machine, or nothing for `"any"`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Configuration(Option<[u8; 48]>);

impl TryFrom<String> for Configuration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == ANY { Ok(Self(None)) } else { digits("value", &text).map(|d| Self(Some(d))) }
    }
}

impl Digits<8> {
    fn number(self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

/// A product number, or nothing for `"any"`.
struct Product(Option<u16>);

impl<'de> Deserialize<'de> for Product {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrAny;
        impl Visitor<'_> for NumberOrAny {
            type Value = Product;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 65535, or \"any\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Product, E> {
                u16::try_from(number)
                    .map(|number| Product(Some(number)))
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Product, E> {
                u16::try_from(number)
                    .map(|number| Product(Some(number)))
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Product, E> {
                if text == ANY {
                    Ok(Product(None))
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
        }
        deserializer.deserialize_any(NumberOrAny)
    }
}
