//! The newest revocation lists that somebody has seen.
//!
//! A list stays in force until its next one is due: the root's, for a year. Until then, whoever
//! hands over collateral can leave a newer list out, and with it the revocation of a PCK CA or of a
//! platform. Someone who remembers what was seen, on any platform, notices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Encode as _;

use super::{Collateral, Part};
use crate::date;
use crate::limits::{MAXIMUM_SEEN_BYTES, MAXIMUM_SEEN_LISTS};
use crate::refusal::{Matter, Refusal, Stage};
use crate::text::json_message;

/// The newest revocation list seen of each issuer: dates and numbers, not the lists themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenLists(BTreeMap<String, Mark>);

/// Which list of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    /// Unix seconds.
    issued: u64,
    number: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    /// By the SHA-256 of the issuer's SubjectPublicKeyInfo (DER), in hexadecimal digits.
    lists: BTreeMap<String, Mark>,
}

/// Why text is not what [`SeenLists::to_json`] wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SeenListsError(String);

impl SeenLists {
    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// [`SeenListsError`], in words.
    pub fn from_json(text: &str) -> Result<Self, SeenListsError> {
        if text.len() > MAXIMUM_SEEN_BYTES {
            let length = text.len();
            let text = format!("it has {length} bytes, expected at most {MAXIMUM_SEEN_BYTES}");
            return Err(SeenListsError(text));
        }
        let file: File =
            serde_json::from_str(text).map_err(|error| SeenListsError(json_message(&error)))?;
        if file.version != 1 {
            let text = format!("version {}, expected version 1", file.version);
            return Err(SeenListsError(text));
        }
        if file.lists.len() > MAXIMUM_SEEN_LISTS {
            let found = file.lists.len();
            let text = format!("{found} lists, expected at most {MAXIMUM_SEEN_LISTS}");
            return Err(SeenListsError(text));
        }
        Ok(Self(file.lists))
    }

    /// As text, for a file.
    pub fn to_json(&self) -> String {
        let file = File { version: 1, lists: self.0.clone() };
        serde_json::to_string_pretty(&file).expect("texts and numbers are always JSON") + "\n"
    }

    /// Checks that no revocation list of a bundle is older than the newest one seen of its issuer,
    /// and remembers those that are newer; true if any is. The bundle must have been verified: what
    /// is remembered here would otherwise be anybody's word. Issuers beyond [`MAXIMUM_SEEN_LISTS`]
    /// are not remembered.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing is remembered then.
    pub fn admit(&mut self, verified: &Collateral) -> Result<bool, Refusal> {
        let lists = [
            (last(&verified.bundle().pck_crl_issuer_chain), verified.root_list()),
            (first(&verified.bundle().pck_crl_issuer_chain), verified.pck_list()),
        ];
        for (issuer, list) in &lists {
            if let Some(seen) = self.0.get(issuer) {
                seen.check(list)?;
            }
        }
        let mut newer = false;
        for (issuer, list) in lists {
            let mark = Mark { issued: list.issued, number: list.number };
            let held = self.0.get(&issuer) == Some(&mark);
            if !held && (self.0.contains_key(&issuer) || self.0.len() < MAXIMUM_SEEN_LISTS) {
                self.0.insert(issuer, mark);
                newer = true;
            }
        }
        Ok(newer)
    }

    /// Both memories as one: the newer mark of each issuer.
    #[must_use]
    pub fn merged(mut self, other: &Self) -> Self {
        for (issuer, mark) in &other.0 {
            let newest = self.0.entry(issuer.clone()).or_insert(*mark);
            newest.issued = newest.issued.max(mark.issued);
            newest.number = newest.number.max(mark.number);
        }
        self
    }
}

impl Mark {
    fn check(&self, list: &Part) -> Result<(), Refusal> {
        if list.issued >= self.issued && list.number >= self.number {
            return Ok(());
        }
        let shown = |issued, number: Option<u64>| {
            let number = number.map_or_else(|| "no number".to_owned(), |it| format!("number {it}"));
            format!("issued at {} ({number})", date::show(issued))
        };
        Err(Refusal::new(Stage::Collateral, "list-older-than-seen", Matter::Collateral)
            .found(format!("a {} {}", list.name, shown(list.issued, list.number)))
            .expected(format!(
                "one no older than the newest of this issuer that was seen here, {}",
                shown(self.issued, self.number)
            ))
            .advice(
                "whoever handed it over holds back newer revocations, or has not fetched them: fetch \
                 collateral yourself, or ask for newer",
            ))
    }
}

/// What stands for the issuer of a list: the first certificate of a chain (PEM), or the last.
fn first(chain: &str) -> String {
    issuer(Certificate::load_pem_chain(chain.as_bytes()).ok().and_then(|all| all.first().cloned()))
}

fn last(chain: &str) -> String {
    issuer(Certificate::load_pem_chain(chain.as_bytes()).ok().and_then(|all| all.last().cloned()))
}

fn issuer(certificate: Option<Certificate>) -> String {
    let spki = certificate.and_then(|certificate| {
        certificate.tbs_certificate().subject_public_key_info().to_der().ok()
    });
    hex::encode(Sha256::digest(spki.unwrap_or_default()))
}
