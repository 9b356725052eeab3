//! What a file holds, as its bytes say: so that a mislabelled one is called what it is, with the
//! command that fits.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::exit::Failure;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Empty,
    Certificate,
    Certificates,
    CertificateRequest,
    RevocationList,
    PrivateKey,
    PublicKey,
    KeyStore,
    SignedMessage,
    Quote,
    SgxReport,
    TdxReport,
    SnpReport,
    Sigstruct,
    Collateral,
    /// One of the answers that collateral is assembled from.
    CollateralPart,
    /// Collateral of many platforms, as Intel's tool for filling a cache writes it.
    CacheDump,
    SeenLists,
    Receipt,
    DynamicConfig,
    Policy,
    Job,
    OtherPem,
    OtherJson,
    Gzip,
    Zstandard,
    Zip,
    WebPage,
    Utf16,
    Text,
    Binary,
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Pem,
    Der,
    Hexadecimal,
    Base64,
}

/// What a file holds, and the bytes that it stands for.
pub(crate) struct Contents<'a> {
    pub(crate) kind: Kind,
    pub(crate) form: Form,
    pub(crate) bytes: Cow<'a, [u8]>,
}

/// No certificate or quote is longer, written as digits.
const LONGEST_TEXT: usize = 128 << 10;

impl<'a> Contents<'a> {
    /// Says what these bytes are. A certificate in PEM, or either of certificate and quote in
    /// hexadecimal digits or base64, is decoded.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let bytes = bytes.strip_prefix(MARK.as_bytes()).unwrap_or(bytes);
        let (kind, form) = match binary(bytes) {
            Some(kind) if bytes[0] == DER_SEQUENCE => (kind, Form::Der),
            Some(kind) => (kind, Form::Plain),
            None => match text(bytes) {
                Some(text) => return Self::of_text(bytes, text),
                None => (Kind::Binary, Form::Plain),
            },
        };
        Self { kind, form, bytes: bytes.into() }
    }

    fn of_text(bytes: &'a [u8], text: &str) -> Self {
        let text = text.trim();
        let here = |kind| Self { kind, form: Form::Plain, bytes: bytes.into() };
        if text.is_empty() {
            return here(Kind::Empty);
        }
        // All of these may have PEM inside.
        if text.starts_with('{') {
            return here(json(text));
        }
        if let Some(kind) = toml(text) {
            return here(kind);
        }
        if text.contains(PEM_BEGINNING) {
            return Self::of_pem(bytes, text);
        }
        if text.starts_with('<') {
            return here(Kind::WebPage);
        }
        if let Some((form, decoded)) = digits(text)
            && let Some(kind @ (Kind::Certificate | Kind::Quote)) = binary(&decoded)
        {
            return Self { kind, form, bytes: decoded.into() };
        }
        here(Kind::Text)
    }

    fn of_pem(bytes: &'a [u8], text: &str) -> Self {
        let labels: Vec<&str> = text
            .split(PEM_BEGINNING)
            .skip(1)
            .filter_map(|block| Some(block.split_once("-----")?.0))
            .collect();
        let whole = |kind| Self { kind, form: Form::Pem, bytes: bytes.into() };
        let certificates = labels.iter().filter(|label| label.ends_with("CERTIFICATE")).count();
        match labels.iter().find(|label| label.ends_with("PRIVATE KEY")) {
            Some(_) => whole(Kind::PrivateKey),
            None if certificates > 1 => whole(Kind::Certificates),
            None if certificates == 1 => match certificate(text) {
                Some(der) => Self { kind: Kind::Certificate, form: Form::Pem, bytes: der.into() },
                None => whole(Kind::OtherPem),
            },
            None => whole(match labels.first() {
                Some(label) if label.ends_with("CERTIFICATE REQUEST") => Kind::CertificateRequest,
                Some(&"X509 CRL") => Kind::RevocationList,
                Some(label) if label.ends_with("PUBLIC KEY") => Kind::PublicKey,
                Some(&"PKCS7" | &"CMS") => Kind::SignedMessage,
                _ => Kind::OtherPem,
            }),
        }
    }

    /// The failure of a command that expected something else in this file.
    pub(crate) fn mistaken(&self, path: &Path, what: &str, expected: &str) -> Failure {
        let (path, advice) = (path.display(), self.advice(path));
        let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
        Failure::usage(format!("{what} {path}: expected {expected}, found {self}{advice}"))
    }

    /// What to do with it.
    fn advice(&self, path: &Path) -> Option<String> {
        let path = path.display();
        Some(match self.kind {
            Kind::Empty => "whatever was to write it has failed: make it again".to_owned(),
            Kind::Certificate | Kind::Quote => format!(
                "'convelo attest inspect {path}' shows it, and 'convelo collateral export --for \
                 {path}' fetches collateral for its platform"
            ),
            Kind::Certificates => {
                "a service's own certificate is the first: save it alone".to_owned()
            }
            Kind::CertificateRequest => {
                "give the certificate that its authority issued for it".to_owned()
            }
            Kind::RevocationList | Kind::CollateralPart | Kind::CacheDump => {
                "'convelo collateral export' fetches all that belongs together: with --pccs, from \
                 your cache"
                    .to_owned()
            }
            Kind::PrivateKey => {
                "keep it secret; 'convelo attest evidence' makes a certificate with \
                                 evidence"
                    .to_owned()
            }
            Kind::SgxReport | Kind::TdxReport => {
                "only the same machine can verify it: have its quoting enclave turn it into a quote"
                    .to_owned()
            }
            Kind::SnpReport => "SEV-SNP is not supported".to_owned(),
            Kind::Sigstruct => {
                format!("'convelo policy from-sigstruct {path}' makes a policy of it")
            }
            Kind::Collateral => format!("'convelo collateral show {path}' shows it"),
            Kind::Receipt => format!("'convelo receipt verify {path}' verifies it"),
            Kind::DynamicConfig => {
                format!("'convelo policy from-dynamic-config {path}' makes a policy of it")
            }
            Kind::Policy => format!("'convelo policy check {path}' shows it"),
            Kind::Job => format!("'convelo check {path}' shows it, with the policy inside"),
            Kind::Gzip => format!("unpack it: gzip -dc {path}"),
            Kind::Zstandard => format!("unpack it: zstd -dc {path}"),
            Kind::Zip => format!("unpack it: unzip {path}"),
            Kind::WebPage => "whatever fetched it got an error page: look at it".to_owned(),
            Kind::Utf16 => "save it as UTF-8".to_owned(),
            _ => return None,
        })
    }
}

impl fmt::Display for Contents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Empty => "an empty file",
            Kind::Certificate => "a certificate",
            Kind::Certificates => "several certificates",
            Kind::CertificateRequest => "a request for a certificate",
            Kind::RevocationList => "a revocation list",
            Kind::PrivateKey => "a private key",
            Kind::PublicKey => "a public key",
            Kind::KeyStore => "a key store (PKCS #12)",
            Kind::SignedMessage => "a signed message (PKCS #7)",
            Kind::Quote => "a quote",
            Kind::SgxReport => "the report of an SGX enclave, which is not yet a quote",
            Kind::TdxReport => "the report of a TDX trust domain, which is not yet a quote",
            Kind::SnpReport => "an attestation report of SEV-SNP",
            Kind::Sigstruct => "the signature of an enclave (SIGSTRUCT)",
            Kind::Collateral => "a collateral bundle",
            Kind::CollateralPart => "one part of a platform's collateral",
            Kind::CacheDump => "collateral of several platforms, for filling a cache",
            Kind::SeenLists => "the list of revocation lists that a party has seen",
            Kind::Receipt => "the receipt of a job",
            Kind::DynamicConfig => "a dynamic_config.json",
            Kind::Policy => "a policy",
            Kind::Job => "a job file",
            Kind::OtherPem => "PEM of another kind",
            Kind::OtherJson => "JSON of another kind",
            Kind::Gzip => "a file compressed by gzip",
            Kind::Zstandard => "a file compressed by Zstandard",
            Kind::Zip => "a Zip archive",
            Kind::WebPage => "a web page or XML",
            Kind::Utf16 => "text in UTF-16",
            Kind::Text => "text",
            Kind::Binary => "bytes of no kind that is known here",
        })?;
        f.write_str(match self.form {
            Form::Plain => "",
            Form::Pem => ", in PEM",
            Form::Der => ", in DER",
            Form::Hexadecimal => ", in hexadecimal digits",
            Form::Base64 => ", in base64",
        })
    }
}

/// What some editors put before a text.
const MARK: &str = "\u{feff}";

const PEM_BEGINNING: &str = "-----BEGIN ";
const DER_SEQUENCE: u8 = 0x30;

/// Decodes hexadecimal digits, or base64 in either alphabet, over any number of lines.
fn digits(text: &str) -> Option<(Form, Vec<u8>)> {
    if text.len() > LONGEST_TEXT {
        return None;
    }
    let text: String = text.split_ascii_whitespace().collect();
    let hexadecimal = text.strip_prefix("0x").unwrap_or(&text);
    if let Ok(bytes) = hex::decode(hexadecimal) {
        return Some((Form::Hexadecimal, bytes));
    }
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let decoded = [STANDARD, URL_SAFE]
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(&text).ok());
    Some((Form::Base64, decoded?))
}

/// The only certificate in a text of PEM.
fn certificate(text: &str) -> Option<Vec<u8>> {
    let start = text.find(PEM_BEGINNING)?;
    let end = text.find("-----END")?;
    let block = text.get(start + PEM_BEGINNING.len()..end)?;
    let (label, body) = block.split_once("-----")?;
    let (form, der) = digits(body)?;
    (label == "CERTIFICATE" && form == Form::Base64).then_some(der)
}

fn text(bytes: &[u8]) -> Option<&str> {
    let plain = |c: char| !c.is_control() || c.is_ascii_whitespace();
    std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(plain))
}

/// What bytes that are no text are.
fn binary(bytes: &[u8]) -> Option<Kind> {
    Some(match bytes {
        [0x1F, 0x8B, ..] => Kind::Gzip,
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Kind::Zstandard,
        [b'P', b'K', 3, 4, ..] => Kind::Zip,
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Kind::Utf16,
        // Version, kind of the attestation key (ECDSA on P-256 or P-384), technology.
        [3..=5, 0, 2 | 3, 0, 0 | 0x81, 0, 0, 0, ..] => Kind::Quote,
        [6, 0, 0, 0, 0xE1, ..] if bytes.len() == 1808 => Kind::Sigstruct,
        [0x81, 0, 0, 0, ..] if bytes.len() == 1024 => Kind::TdxReport,
        [2..=5, 0, 0, 0, ..] if bytes.len() == 1184 => Kind::SnpReport,
        [DER_SEQUENCE, ..] => return der(bytes),
        _ if bytes.len() == 432 && text(bytes).is_none() => Kind::SgxReport,
        _ => return None,
    })
}

/// What a structure in DER is, by the kinds of its first elements.
fn der(bytes: &[u8]) -> Option<Kind> {
    const INTEGER: u8 = 0x02;
    const BIT_STRING: u8 = 0x03;
    const OCTETS: u8 = 0x04;
    const OID: u8 = 0x06;
    const TIMES: [u8; 2] = [0x17, 0x18];
    const VERSION: u8 = 0xA0;
    let outer = elements(element(bytes)?.1);
    let tags: Vec<u8> = outer.iter().map(|(tag, _)| *tag).collect();
    let first = outer.first()?.1;
    Some(match tags.as_slice() {
        [INTEGER, DER_SEQUENCE, ..] if first == [3] => Kind::KeyStore,
        [INTEGER, DER_SEQUENCE | OCTETS | INTEGER, ..] | [DER_SEQUENCE, OCTETS] => Kind::PrivateKey,
        [OID, ..] => Kind::SignedMessage,
        [DER_SEQUENCE, BIT_STRING] => Kind::PublicKey,
        [DER_SEQUENCE, DER_SEQUENCE, BIT_STRING] => {
            let signed = elements(first);
            let tag = |at: usize| signed.get(at).map(|(tag, _)| *tag);
            match (tag(0)?, tag(3)) {
                (VERSION, _) | (INTEGER, Some(DER_SEQUENCE)) => Kind::Certificate,
                (INTEGER, Some(tag)) if TIMES.contains(&tag) => Kind::RevocationList,
                (INTEGER, _) => Kind::CertificateRequest,
                (DER_SEQUENCE, _) => Kind::RevocationList,
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// The tag, content and rest of the first element.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7F => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7F))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The first elements of a structure: more are not needed to know its kind.
fn elements(mut content: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some((tag, inner, rest)) = element(content)
        && found.len() < 8
    {
        found.push((tag, inner));
        content = rest;
    }
    found
}

/// What JSON is, by the names in it; text that only begins like JSON is JSON too: its own reader says
/// where it is wrong.
fn json(text: &str) -> Kind {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return Kind::OtherJson };
    let has = |name: &str| fields.contains_key(name);
    if has("tcb_info") && has("qe_identity") {
        Kind::Collateral
    } else if has("tcbInfo") || has("enclaveIdentity") {
        Kind::CollateralPart
    } else if has("collaterals") {
        Kind::CacheDump
    } else if has("form") && has("job") {
        Kind::Receipt
    } else if has("version") && has("lists") {
        Kind::SeenLists
    } else if fields.keys().any(|name| {
        let name = name.to_lowercase();
        name == "sgx_mrs" || name.starts_with("verify_mr_")
    }) {
        Kind::DynamicConfig
    } else {
        Kind::OtherJson
    }
}

/// What TOML is, by the headings of its tables.
fn toml(text: &str) -> Option<Kind> {
    let has = |heading: &str| text.lines().any(|line| line.trim_end() == heading);
    if has("[service]") || has("[[party]]") {
        Some(Kind::Job)
    } else if has("[[enclave]]") || has("[[trust_domain]]") {
        Some(Kind::Policy)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(bytes: &[u8]) -> Kind {
        Contents::of(bytes).kind
    }

    fn vector(name: &str) -> Vec<u8> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::read(root.join("../../vectors/attestation").join(name)).unwrap()
    }

    fn pem(label: &str) -> Vec<u8> {
        format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n").into_bytes()
    }

    #[test]
    fn genuine_material_in_every_form() {
        for name in ["sgx_quote", "tdx_quote", "tdx_quote_td15ex"] {
            let quote = vector(&format!("quotes/{name}"));
            let hexadecimal = hex::encode(&quote);
            let lines: Vec<&str> = (0..hexadecimal.len())
                .step_by(64)
                .map(|at| &hexadecimal[at..][..64.min(hexadecimal.len() - at)])
                .collect();
            let standard = base64::engine::general_purpose::STANDARD.encode(&quote);
            let url = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&quote);
            for (text, form) in [
                (hexadecimal.clone(), Form::Hexadecimal),
                (format!("0x{}\n", hexadecimal.to_uppercase()), Form::Hexadecimal),
                (lines.join("\r\n"), Form::Hexadecimal),
                (standard, Form::Base64),
                (url, Form::Base64),
            ] {
                let contents = Contents::of(text.as_bytes());
                assert_eq!((contents.kind, contents.form), (Kind::Quote, form), "{name}");
                assert!(*contents.bytes == *quote, "{name} {form:?}");
            }
            assert_eq!(kind(&quote), Kind::Quote);
            assert_eq!(kind(&vector(&format!("quotes/{name}_collateral.json"))), Kind::Collateral);
        }
        for name in ["gramine", "intel-sgxsdk", "rats-tls"] {
            let text = vector(&format!("ratls-certs/{name}-cert.pem"));
            let contents = Contents::of(&text);
            assert_eq!((contents.kind, contents.form), (Kind::Certificate, Form::Pem));
            let again = Contents::of(&contents.bytes);
            assert_eq!((again.kind, again.form), (Kind::Certificate, Form::Der));
            let explained = [b"subject=CN = RATLS\r\n", text.as_slice()].concat();
            assert!(Contents::of(&explained).bytes == contents.bytes);
            assert_eq!(kind(&text.repeat(2)), Kind::Certificates);
        }
    }

    #[test]
    fn other_files_are_called_what_they_are() {
        for (bytes, expected) in [
            (Vec::new(), Kind::Empty),
            (b" \r\n".to_vec(), Kind::Empty),
            ("\u{feff}".into(), Kind::Empty),
            (pem("PRIVATE KEY"), Kind::PrivateKey),
            (pem("EC PRIVATE KEY"), Kind::PrivateKey),
            ([pem("CERTIFICATE"), pem("PRIVATE KEY")].concat(), Kind::PrivateKey),
            (pem("CERTIFICATE REQUEST"), Kind::CertificateRequest),
            (pem("NEW CERTIFICATE REQUEST"), Kind::CertificateRequest),
            (pem("X509 CRL"), Kind::RevocationList),
            (pem("PUBLIC KEY"), Kind::PublicKey),
            (pem("PKCS7"), Kind::SignedMessage),
            (pem("AGE ENCRYPTED FILE"), Kind::OtherPem),
            (b"{\"tcbInfo\":{},\"signature\":\"\"}".to_vec(), Kind::CollateralPart),
            (b"{\"platforms\":[],\"collaterals\":{}}".to_vec(), Kind::CacheDump),
            (b"{\"version\":1,\"lists\":{}}".to_vec(), Kind::SeenLists),
            (b"{\"sgx_mrs\":[]}".to_vec(), Kind::DynamicConfig),
            (b"{\"form\":\"convelo/receipt/v2\",\"job\":{}}".to_vec(), Kind::Receipt),
            (b"{\"a\": ".to_vec(), Kind::OtherJson),
            (b"<!DOCTYPE html><html></html>".to_vec(), Kind::WebPage),
            (b"\x1f\x8b\x08\x00".to_vec(), Kind::Gzip),
            (b"\x28\xb5\x2f\xfd\x04".to_vec(), Kind::Zstandard),
            (b"PK\x03\x04".to_vec(), Kind::Zip),
            (b"\xff\xfe{\x00".to_vec(), Kind::Utf16),
            (vec![0xE5; 432], Kind::SgxReport),
            ([[0x81, 0, 0, 0].as_slice(), &[9; 1020]].concat(), Kind::TdxReport),
            ([[2, 0, 0, 0].as_slice(), &[9; 1180]].concat(), Kind::SnpReport),
            (b"version = 1\n[[enclave]]\n".to_vec(), Kind::Policy),
            (b"[service]\n[[party]]\n".to_vec(), Kind::Job),
            (b"deadbeef".to_vec(), Kind::Text),
            (b"a,b\n1,2\n".to_vec(), Kind::Text),
            (vec![7; 100], Kind::Binary),
            (vec![0; 100], Kind::Binary),
            (vec![0x30, 0x82], Kind::Binary),
        ] {
            let contents = Contents::of(&bytes);
            assert_eq!(contents.kind, expected, "{contents}");
            let path = Path::new("f");
            let told = contents.mistaken(path, "the evidence", "a quote").to_string();
            assert!(told.starts_with("the evidence f: expected a quote, found "), "{told}");
        }
    }

    /// By the elements in them: neither of these is parsed.
    #[test]
    fn structures_in_der() {
        let tlv = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            [&[tag, length], content].concat()
        };
        let sequence = |parts: &[Vec<u8>]| tlv(0x30, &parts.concat());
        let (number, names, bits) = (tlv(2, &[1]), sequence(&[]), tlv(3, &[0]));
        let time = tlv(0x17, b"260101000000Z");
        let signed = |parts: &[Vec<u8>]| sequence(&[sequence(parts), names.clone(), bits.clone()]);
        let four = |last: &Vec<u8>| [&number, &names, &names, last].map(Vec::clone);
        for (der, expected) in [
            (signed(&[tlv(0xA0, &number), number.clone()]), Kind::Certificate),
            (signed(&four(&names)), Kind::Certificate),
            (signed(&four(&time)), Kind::RevocationList),
            (signed(&[names.clone(), names.clone(), time.clone()]), Kind::RevocationList),
            (signed(&four(&tlv(0xA0, &[]))), Kind::CertificateRequest),
            (sequence(&[number.clone(), names.clone(), tlv(4, &[])]), Kind::PrivateKey),
            (sequence(&[number.clone(), tlv(4, &[1])]), Kind::PrivateKey),
            (sequence(&[number.clone(), number.clone()]), Kind::PrivateKey),
            (sequence(&[names.clone(), tlv(4, &[])]), Kind::PrivateKey),
            (sequence(&[tlv(2, &[3]), names.clone()]), Kind::KeyStore),
            (sequence(&[names.clone(), bits.clone()]), Kind::PublicKey),
            (sequence(&[tlv(6, &[1]), tlv(0xA0, &[])]), Kind::SignedMessage),
            (sequence(&[]), Kind::Binary),
        ] {
            assert_eq!(kind(&der), expected, "{}", hex::encode(der));
        }
    }
}
