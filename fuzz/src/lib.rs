//! What is fuzzed: every parser that reads bytes from a peer or a file, as a plain function.
//!
//! Each function panics if a promise stronger than "no panic" is broken: what was accepted can be
//! written again, and is then the same.

mod mpc;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use convelo_attest::{
    CertificateRules, Collateral, Evidence, Policy, Qcnl, collateral_endpoint, inspect, spki_of,
};
use convelo_keys::{Encoded, Normaliser};
use convelo_operate::proto as psi;
use convelo_party::direct::frame::{self as direct, Frame, HEAD_BYTES};
use convelo_party::direct::testimony::{SignedTestimony, Testimony};
use convelo_party::table::{Format, Input, Output, Table, TableError, TableOptions};
use convelo_party::verify_receipt;
use convelo_pool::codec::{self, Array, Blob, Integer, Typed};
use convelo_pool::{Wire, envelope, footprint, frame, http, parquet};
use convelo_psi::{Job, KeyPart, STEPS, SetReceiver, Statement};
use convelo_simulator::{CertificateKnobs, certificate as simulated_certificate};
use convelo_wire::{FromParty, ToParty, proto};
use prost::Message as _;
use rcgen::KeyPair;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use mpc::{mpc_ecdh, mpc_vole_psi};

/// A target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 29] = [
    ("from_party", from_party),
    ("to_party", to_party),
    ("statement", statement),
    ("psi_wire", psi_wire),
    ("job_canonical", job_canonical),
    ("job_toml", job_toml),
    ("recipe", recipe),
    ("certificate", certificate),
    ("claims", claims),
    ("quote", quote),
    ("sigstruct", sigstruct),
    ("collateral", collateral),
    ("policy_toml", policy_toml),
    ("dynamic_config", dynamic_config),
    ("qcnl", qcnl),
    ("set_receiver", set_receiver),
    ("receipt", receipt),
    ("table_csv", table_csv),
    ("pool_envelope", pool_envelope),
    ("pool_frame", pool_frame),
    ("pool_codec", pool_codec),
    ("pool_footprint", pool_footprint),
    ("pool_parquet", pool_parquet),
    ("pool_http_head", pool_http_head),
    ("proxy_header", proxy_header),
    ("direct_frame", direct_frame),
    ("direct_testimony", direct_testimony),
    ("mpc_vole_psi", mpc_vole_psi),
    ("mpc_ecdh", mpc_ecdh),
];

/// The clock of all targets: 2026-11-21.
const NOW: u64 = 1_795_219_200;

/// What a party sends to the service.
pub fn from_party(data: &[u8]) {
    let Ok(message) = proto::FromParty::decode(data) else { return };
    let Ok(message) = FromParty::try_from(message) else { return };
    let written = proto::FromParty::from(message);
    let read = FromParty::try_from(written.clone()).expect("what was accepted is accepted again");
    assert!(proto::FromParty::from(read) == written);
}

/// What the service sends to a party.
pub fn to_party(data: &[u8]) {
    let Ok(message) = proto::ToParty::decode(data) else { return };
    let Ok(message) = ToParty::try_from(message) else { return };
    let written = proto::ToParty::from(message);
    let read = ToParty::try_from(written.clone()).expect("what was accepted is accepted again");
    assert!(proto::ToParty::from(read) == written);
}

/// Every message of the psi.PSI wire.
pub fn psi_wire(data: &[u8]) {
    fn round_trip<M: prost::Message + Default + PartialEq>(data: &[u8]) {
        let Ok(message) = M::decode(data) else { return };
        let again = M::decode(&*message.encode_to_vec());
        assert!(again.is_ok_and(|again| again == message));
    }
    round_trip::<psi::RaRequest>(data);
    round_trip::<psi::RaReply>(data);
    round_trip::<psi::ConnectRequest>(data);
    round_trip::<psi::ConnectReply>(data);
    round_trip::<psi::DataUploadRequest>(data);
    round_trip::<psi::UploadReply>(data);
    round_trip::<psi::CalPsiRequest>(data);
    round_trip::<psi::Results>(data);
}

/// What the service signs.
pub fn statement(data: &[u8]) {
    let Ok(statement) = Statement::decode(data) else { return };
    // Version 1 is read, and no longer written.
    if statement.transcript.is_some() {
        assert_eq!(statement.encode(), data, "a statement has one form");
    }
}

/// What one party of a job without a service sends to another.
pub fn direct_frame(data: &[u8]) {
    let Some((head, content)) = data.split_first_chunk::<HEAD_BYTES>() else { return };
    let Ok((kind, length)) = direct::head(*head) else { return };
    let Some(content) = content.get(..length) else { return };
    let Ok(frame) = Frame::read(kind, Bytes::copy_from_slice(content)) else { return };
    let (head, content) = frame.write();
    let (kind, length) = direct::head(head).expect("what was accepted is accepted again");
    assert_eq!(length, content.len());
    assert_eq!(Frame::read(kind, content), Ok(frame));
}

/// What it signs, and what comes around that.
pub fn direct_testimony(data: &[u8]) {
    if let Ok(testimony) = Testimony::decode(data) {
        assert_eq!(testimony.encode(), data, "a testimony has one form");
    }
    if let Ok(signed) = SignedTestimony::from_message(data) {
        assert_eq!(signed.to_message(), data);
        let _ = Testimony::decode(&signed.testimony);
    }
}

/// A job as it travels.
pub fn job_canonical(data: &[u8]) {
    if let Ok(job) = Job::from_canonical(data) {
        assert_eq!(job.canonical().as_bytes(), data, "the canonical form is the only one");
    }
}

/// A job as people write it.
pub fn job_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(job) = Job::from_toml(text) {
        let read = Job::from_canonical(job.canonical().as_bytes()).expect("a job travels");
        assert_eq!(read.digest(), job.digest());
    }
}

/// A field of a table, and the step that the first byte chooses: what a step has made of a text, it
/// makes of it again.
pub fn recipe(data: &[u8]) {
    let Some((step, field)) = data.split_first() else { return };
    let Ok(field) = std::str::from_utf8(field) else { return };
    let step = STEPS[usize::from(*step) % STEPS.len()].parse().expect("a step");
    let part = KeyPart::new("part", vec![step]);
    let mut normaliser = Normaliser::new(&[part]);
    let Encoded::Key(key) = normaliser.encode([field]) else { return };
    let key = key.to_vec();
    // The recipe's version, the number of parts and the length of this one.
    let text = std::str::from_utf8(&key[12..]).expect("a step makes text of text");
    assert!(
        normaliser.encode([text]) == Encoded::Key(key[..].into()),
        "{step} of {field:?} is {text:?}"
    );
}

/// A peer's certificate, under the strictest rules and the most lenient ones.
pub fn certificate(data: &[u8]) {
    let lenient = CertificateRules {
        maximum_lifetime_seconds: u64::MAX,
        allow_legacy_evidence: true,
        skip_foreign_claims: true,
    };
    let found = Evidence::from_certificate_with(data, NOW, &lenient);
    if let Ok(Some(evidence)) = Evidence::from_certificate(data, NOW) {
        assert_eq!(spki_of(data).expect("it was parsed before"), evidence.spki());
        assert!(matches!(found, Ok(Some(_))), "what the strict rules accept, the lenient ones do");
    }
}

/// What a balancer says before a connection's bytes.
pub fn proxy_header(data: &[u8]) {
    let _ = convelo_channel::proxy_protocol::address(data);
}

/// The extension with quote and claims, in an otherwise good certificate.
pub fn claims(data: &[u8]) {
    static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("randomness"));
    let dice = vec![2, 23, 133, 5, 4, 9];
    let knobs =
        CertificateKnobs { extensions: vec![(dice, data.to_vec())], ..CertificateKnobs::at(NOW) };
    let der = simulated_certificate(&KEY, &knobs).expect("it is well formed");
    certificate(&der);
}

/// A quote, as a session's proof carries it, and as a person inspects one.
pub fn quote(data: &[u8]) {
    let _ = Evidence::from_quote(data, &[0; 64], b"a key");
    let _ = inspect(data, NOW);
}

/// An author's signature of an enclave.
pub fn sigstruct(data: &[u8]) {
    if let Ok(policy) = Policy::from_sigstruct("x", data) {
        let read = Policy::from_toml(&policy.to_toml()).expect("what was written is read");
        assert_eq!(read.digest(), policy.digest());
    }
}

/// A receipt.
pub fn receipt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = verify_receipt(text, convelo_party::Against::default());
}

/// A collateral bundle.
pub fn collateral(data: &[u8]) {
    let offered = Collateral::from_offer(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(collateral) = Collateral::from_json(text) {
        assert!(offered.is_ok(), "an offer is a bundle like any other");
        let read = Collateral::from_json(&collateral.to_json()).expect("what was written is read");
        assert_eq!(read.digest(), collateral.digest());
    }
}

/// A policy, as a file and as part of a job.
pub fn policy_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(policy) = Policy::from_toml(text) {
        let read = Policy::from_json(&policy.to_json()).expect("what was written is read");
        assert_eq!(read.digest(), policy.digest());
    }
}

/// The policy file of the system that convelo replaces.
pub fn dynamic_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(policy) = Policy::from_dynamic_config(text) {
        let read = Policy::from_json(&policy.to_json()).expect("what was written is read");
        assert_eq!(read.digest(), policy.digest());
    }
}

/// The configuration of Intel's quote provider.
pub fn qcnl(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(qcnl) = Qcnl::parse(text) {
        assert_eq!(collateral_endpoint(&qcnl.url), Ok((qcnl.url.clone(), None)));
    }
}

/// An upload: the first byte is the declared size, the second the size of chunks.
pub fn set_receiver(data: &[u8]) {
    let [declared, size, rest @ ..] = data else { return };
    let mut receiver = SetReceiver::new(u64::from(*declared));
    for chunk in rest.chunks(usize::from(*size).max(1)) {
        let _ = receiver.push_chunk(chunk);
        assert!(receiver.received() <= receiver.declared() || *declared == 0);
    }
    if let Ok(set) = receiver.finish() {
        assert_eq!(set.len(), usize::from(*declared));
        let values: Vec<_> = set.iter().collect();
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]));
        let written: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
        assert!(written == rest);
    }
}

/// A table: the first byte chooses delimiter, header and escape character. All rows are written, and
/// read again.
///
/// A byte order mark is not text: a field that begins with one loses it if it ends up at the start
/// of what is written. Such tables are skipped.
pub fn table_csv(data: &[u8]) {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let [choice, rest @ ..] = data else { return };
    if rest.windows(3).skip(1).any(|bytes| bytes == BYTE_ORDER_MARK) {
        return;
    }
    let delimiter = [b',', b';', b'\t', b'|'][usize::from(choice % 4)];
    let escape = (choice & 8 != 0).then_some(b'\\');
    let format = Format::Csv { delimiter, header: choice & 4 != 0, escape };
    let Ok(first) = rows(rest, format) else { return };
    if first.1.is_empty() {
        return;
    }
    let again = rows(&first.1, format).expect("what was written is read");
    assert!(again == first, "reading and writing again changes nothing");
}

/// The first field of every row, and the file that is written when all rows match.
fn rows(bytes: &[u8], format: Format) -> Result<(Vec<String>, Vec<u8>), TableError> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("a temporary file can be written");
    let key = vec!["#1".parse().expect("the number of a column")];
    let input = Input::open(file.path(), &std::env::temp_dir())?;
    let mut table = Table::open(input, &TableOptions { format, key, select: Vec::new() })?;
    let mut fields = Vec::new();
    let counts = table.scan(
        |_| {},
        |mut key| {
            fields.extend(key.next().map(str::to_owned));
            Ok::<_, TableError>(())
        },
    )?;
    assert_eq!(counts.rows, fields.len() as u64);
    let mut written = Vec::new();
    let output = Output::Writer(Box::new(&mut written));
    table.write_matched(&counts, output, |_| {}, |_| Ok::<_, TableError>(true))?;
    Ok((fields, written))
}

/// A body of one of the Pool's compatible wires. Its value is the same in a new envelope as in the
/// old one.
pub fn pool_envelope(data: &[u8]) {
    for wire in [Wire::Four, Wire::Five] {
        let Ok(parsed) = envelope::parse(data, wire) else { continue };
        let value = &data[parsed.value];
        let (head, tail) = envelope::build(wire, &parsed.id, value.len()).expect("it was read");
        let body = [&head, value, &tail].concat();
        let again = envelope::parse(&body, wire).expect("what was written is read");
        assert_eq!((again.id, &body[again.value]), (parsed.id, value));
        assert!(envelope::looks_like(data).is_some());
        if wire == Wire::Four {
            assert!(envelope::count_wrappers(data) >= envelope::count_wrappers(value));
        }
    }
}

/// A body of the Pool's second wire.
pub fn pool_frame(data: &[u8]) {
    let total = data.len() as u64;
    let Ok(head) = frame::Head::parse(data, total) else { return };
    let written = frame::encode(&head.id, head.value_len, &head.buffer_lens).expect("it was read");
    assert!(data.starts_with(&written), "there is one way to write a head");
    assert_eq!(frame::Prefix::parse(data, total).map(|p| p.head_len()), Ok(written.len()));
    let rest = head.buffer_lens.iter().fold(head.value_len, |sum, len| sum + len);
    assert_eq!(written.len() as u64 + rest, total);
}

/// A value of the Pool: the first byte chooses the wire, the second how much of the value goes into
/// two buffers.
pub fn pool_codec(data: &[u8]) {
    let [choice, buffered, rest @ ..] = data else { return };
    let wire = [Wire::Two, Wire::Four, Wire::Five][usize::from(choice % 3)];
    let (buffers, value) = rest.split_at(usize::from(*buffered).min(rest.len()));
    let (first, second) = buffers.split_at(buffers.len() / 2);
    let buffers = [Bytes::copy_from_slice(first), Bytes::copy_from_slice(second)];
    let value = Bytes::copy_from_slice(value);
    // On the compatible wires an array may have a different shape from the one that its lists show.
    decoded::<Array>(Wire::Two, wire, &value, &buffers);
    decoded::<Integer>(wire, wire, &value, &buffers);
    decoded::<Vec<Typed<Blob>>>(wire, wire, &value, &buffers);
    decoded::<BTreeMap<String, Option<Vec<i128>>>>(Wire::Two, wire, &value, &buffers);
    let _ = codec::from_parts::<Vec<Vec<f64>>>(wire, &value, &buffers);
    let _ = codec::from_parts::<serde_json::Value>(wire, &value, &buffers);
}

/// Writes what was read for a wire, and reads it from there: it must be the same.
fn decoded<T>(to: Wire, wire: Wire, value: &Bytes, buffers: &[Bytes])
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let Ok(read) = codec::from_parts::<T>(wire, value, buffers) else { return };
    let payload = codec::to_payload(&read, to).expect("what was read is written");
    let again = codec::from_parts(to, &payload.parts.concat().into(), &payload.buffers);
    assert_eq!(again.ok(), Some(read));
}

/// How much memory a value of the Pool takes in Python: what is cut off is no value, and larger
/// tables for keys take no less.
pub fn pool_footprint(data: &[u8]) {
    let Ok(texts) = footprint::footprint(data, footprint::Keys::Texts) else { return };
    let any = footprint::footprint(data, footprint::Keys::Any).expect("keys are not read");
    assert!((texts..=3 * texts).contains(&any));
    // A byte is an object of 64 bytes, its place in a list, and the table of a map.
    assert!(texts <= 320 * data.len() as u64);
}

/// A Parquet file from a peer of the Pool.
pub fn pool_parquet(data: &[u8]) {
    let Ok(claims) = parquet::claims(data) else { return };
    for (key, value) in &claims.entries {
        assert!(data.get(key.clone()).is_some() && data.get(value.clone()).is_some());
    }
}

/// What a connection to the Pool begins with.
pub fn pool_http_head(data: &[u8]) {
    if let Ok(Some((head, length))) = http::RequestHead::parse(data) {
        assert_eq!(http::RequestHead::parse(&data[..length]), Ok(Some((head, length))));
    }
    if let Ok(Some((head, length))) = http::ResponseHead::parse(data) {
        assert_eq!(http::ResponseHead::parse(&data[..length]), Ok(Some((head, length))));
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    use super::*;

    /// Executions of each target by [`mutated`], unless `CONVELO_FUZZ_RUNS` gives another number.
    const RUNS: u64 = 20_000;

    /// One in so many of these executions, of targets that take milliseconds.
    const SLOWER: [(&str, u64); 2] = [("mpc_vole_psi", 20), ("mpc_ecdh", 4)];

    /// Longest input that [`mutated`] makes; certificates and collateral are shorter than this.
    const LONGEST: usize = 64 << 10;

    /// xorshift64: the same sequence in every run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: usize) -> usize {
            (self.next() >> 16) as usize % bound.max(1)
        }
    }

    fn files(name: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for directory in ["seeds", "corpus", "artifacts"] {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory).join(name);
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            files.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        files.sort();
        files
    }

    /// Everything that a fuzzer left behind, for toolchains that have none.
    #[test]
    fn replay() {
        for (name, target) in TARGETS {
            for path in files(name) {
                eprintln!("{}", path.display());
                target(&fs::read(&path).expect("a file"));
            }
        }
    }

    /// A few seconds of what a fuzzer does for hours: changed seeds, and random bytes.
    #[test]
    fn mutated() {
        let runs = env::var("CONVELO_FUZZ_RUNS").map_or(RUNS, |runs| {
            runs.parse().expect("CONVELO_FUZZ_RUNS is a number of executions")
        });
        let only = env::var("CONVELO_FUZZ_TARGET").ok();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for (name, target) in TARGETS {
            if only.as_deref().is_some_and(|only| only != name) {
                continue;
            }
            let seeds: Vec<Vec<u8>> =
                files(name).iter().map(|path| fs::read(path).expect("a file")).collect();
            let slower = SLOWER.iter().find(|(slower, _)| *slower == name);
            let runs = runs / slower.map_or(1, |(_, times)| *times);
            for run in 0..runs {
                let data = match seeds.len() {
                    0 => random_bytes(&mut random),
                    _ if run % 8 == 0 => random_bytes(&mut random),
                    count => changed(&seeds[random.below(count)], &seeds, &mut random),
                };
                target(&data);
            }
            eprintln!("{name}: {runs} executions from {} seeds", seeds.len());
        }
    }

    fn random_bytes(random: &mut Random) -> Vec<u8> {
        let length = random.below(200);
        (0..length).map(|_| (random.next() >> 32) as u8).collect()
    }

    /// One to four changes: a bit, a byte, an edge value, a piece cut, doubled or from another seed.
    fn changed(seed: &[u8], seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
        let mut data = seed.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(data.len());
            let length = random.below(data.len() - at).min(random.below(64) + 1);
            match random.below(7) {
                0 if !data.is_empty() => data[at] ^= 1 << random.below(8),
                1 if !data.is_empty() => data[at] = (random.next() >> 32) as u8,
                2 if !data.is_empty() => data[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                3 => drop(data.drain(at..at + length)),
                4 => data.truncate(at),
                5 => {
                    let piece = data[at..at + length].to_vec();
                    data.splice(at..at, piece);
                }
                _ => {
                    let other = &seeds[random.below(seeds.len())];
                    let from = random.below(other.len());
                    let to = from + random.below(other.len() - from).min(256);
                    data.splice(at..at + length, other[from..to].iter().copied());
                }
            }
        }
        data.truncate(LONGEST);
        data
    }
}
