//! The public log of releases of the measured program (`deploy/measurements.toml`): what each release measures
//! to, and what has become known about it since.

use serde::Deserialize;
use serde_json::{Value, json};
use time::Date;
use time::macros::format_description;

/// The log as it was when this program was built.
pub(crate) const OWN: &str = include_str!("../../../deploy/measurements.toml");

/// All that has been released, in the order of the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Log {
    releases: Vec<Release>,
    notes: Vec<Note>,
}

/// A program, measured for certain sizes under a certain Gramine.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    version: String,
    date: String,
    program_sha256: String,
    memory: String,
    workers: u32,
    gramine: String,
    gramine_libpal_sha256: String,
    gramine_libsysdb_sha256: String,
    mr_enclave: String,
    isv_prod_id: u16,
    isv_svn: u16,
}

/// What has become known about a release.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    version: String,
    date: String,
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Advisory,
    Withdrawn,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    release: Vec<Release>,
    #[serde(default)]
    note: Vec<Note>,
}

impl Log {
    /// Reads a log. It is refused as a whole if an entry of it is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let File { release: releases, note: notes } = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        for (index, release) in releases.iter().enumerate() {
            let wrong = |why: String| {
                format!("release {} ({}): {why}", index + 1, release.version.escape_debug())
            };
            let earlier = &releases[..index];
            release.check().and_then(|()| release.follows(earlier)).map_err(wrong)?;
        }
        for (index, note) in notes.iter().enumerate() {
            let wrong = |why: String| {
                format!("note {} ({}): {why}", index + 1, note.version.escape_debug())
            };
            note.check(&releases, &notes[..index]).map_err(wrong)?;
        }
        Ok(Self { releases, notes })
    }

    /// The versions that it names, each once.
    pub(crate) fn versions(&self) -> Vec<&str> {
        let mut versions: Vec<_> =
            self.releases.iter().map(|entry| entry.version.as_str()).collect();
        versions.dedup();
        versions
    }

    /// A policy that accepts a version's enclaves, all sizes of them, in the form that
    /// [`Policy::from_json`](convelo_attest::Policy::from_json) reads; nothing for a version that is not in
    /// the log.
    pub(crate) fn policy(&self, version: &str) -> Option<Value> {
        let of_version = self.releases.iter().filter(|entry| entry.version == version);
        let enclaves: Vec<Value> = of_version.map(Release::enclave).collect();
        (!enclaves.is_empty()).then(|| json!({ "version": 1, "enclave": enclaves }))
    }

    /// All that has become known about a version.
    pub(crate) fn notes(&self, version: &str) -> impl Iterator<Item = &Note> {
        self.notes.iter().filter(move |note| note.version == version)
    }
}

impl Release {
    fn check(&self) -> Result<(), String> {
        check_version(&self.version)?;
        date(&self.date)?;
        for (name, hash) in [
            ("program_sha256", &self.program_sha256),
            ("gramine_libpal_sha256", &self.gramine_libpal_sha256),
            ("gramine_libsysdb_sha256", &self.gramine_libsysdb_sha256),
            ("mr_enclave", &self.mr_enclave),
        ] {
            let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let varied = hash.bytes().any(|byte| byte != b'0');
            if hash.len() != 64 || !hash.bytes().all(digit) || !varied {
                return Err(format!("{name} must be 64 hexadecimal digits in lower case"));
            }
        }
        let size = self.memory.strip_suffix(['K', 'M', 'G']).unwrap_or(&self.memory);
        let plain = size.bytes().all(|byte| byte.is_ascii_digit()) && !size.starts_with('0');
        if size.is_empty() || !plain {
            return Err("memory must be a number of bytes, or one with K, M or G".to_owned());
        }
        if !(1..=64).contains(&self.workers) {
            return Err("workers must be from 1 to 64".to_owned());
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-+~:".contains(&byte);
        if self.gramine.is_empty() || self.gramine.len() > 64 || !self.gramine.bytes().all(known) {
            return Err("gramine must be the version of a package".to_owned());
        }
        Ok(())
    }

    /// Whether it can stand behind these.
    fn follows(&self, earlier: &[Self]) -> Result<(), String> {
        if earlier.last().is_some_and(|last| last.date > self.date) {
            return Err("it is older than the one before it: the log only grows".to_owned());
        }
        if earlier.iter().any(|other| other.mr_enclave == self.mr_enclave) {
            return Err("its mr_enclave is that of another entry".to_owned());
        }
        let made_of = |entry: &Self| {
            let Self { version, memory, workers, .. } = entry;
            let libraries = [&entry.gramine_libpal_sha256, &entry.gramine_libsysdb_sha256];
            (version.clone(), memory.clone(), *workers, libraries.map(Clone::clone))
        };
        if earlier.iter().any(|other| made_of(other) == made_of(self)) {
            return Err("another entry says what the same release measures to".to_owned());
        }
        let same = earlier.iter().rposition(|other| other.version == self.version);
        if let Some(at) = same {
            if earlier[at].program_sha256 != self.program_sha256 {
                return Err("its program is not that of the version's other entries".to_owned());
            }
            if at + 1 != earlier.len() {
                return Err("another version stands between the version's entries".to_owned());
            }
        }
        Ok(())
    }

    fn enclave(&self) -> Value {
        let Self { version, memory, workers, gramine, .. } = self;
        json!({
            "name": format!(
                "convelo-service {version} ({memory}, {workers} workers, Gramine {gramine})"
            ),
            "mr_enclave": self.mr_enclave,
            "isv_prod_id": self.isv_prod_id,
            "minimum_isv_svn": self.isv_svn,
        })
    }
}

impl Note {
    /// Whether it tells people not to accept the release any longer.
    pub(crate) fn withdraws(&self) -> bool {
        self.kind == Kind::Withdrawn
    }

    /// What it says, in one line.
    pub(crate) fn words(&self) -> String {
        let kind = match self.kind {
            Kind::Advisory => "ADVISORY",
            Kind::Withdrawn => "WITHDRAWN",
        };
        format!("{kind} of {} about {}: {}", self.date, self.version, self.text)
    }

    fn check(&self, releases: &[Release], earlier: &[Self]) -> Result<(), String> {
        date(&self.date)?;
        let about = releases.iter().find(|release| release.version == self.version);
        let Some(release) = about else {
            return Err("there is no such release".to_owned());
        };
        if self.date < release.date || earlier.last().is_some_and(|last| last.date > self.date) {
            return Err("it is older than what stands before it: the log only grows".to_owned());
        }
        if self.text.trim().is_empty() || self.text.chars().any(char::is_control) {
            return Err("its text must be one line".to_owned());
        }
        Ok(())
    }
}

fn check_version(version: &str) -> Result<(), String> {
    let numbers: Vec<_> = version.split('.').collect();
    let is_number = |text: &&str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits && (*text == "0" || !text.starts_with('0'))
    };
    if numbers.len() == 3 && numbers.iter().all(is_number) {
        return Ok(());
    }
    Err("a version has three numbers, as 1.2.3".to_owned())
}

fn date(text: &str) -> Result<Date, String> {
    Date::parse(text, format_description!("[year]-[month]-[day]"))
        .map_err(|_| format!("{} is no date; expected YYYY-MM-DD", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    const LOG: &str = "deploy/measurements.toml";

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
    }

    /// The tests' log: two sizes of 0.2.0, which has an advisory and is withdrawn, and 0.2.1.
    fn sample() -> String {
        fs::read_to_string(repository().join("tests/fixtures/measurements.toml")).unwrap()
    }

    #[test]
    fn the_log_of_this_repository_is_well_formed() {
        let log = Log::parse(OWN).unwrap();
        assert_eq!(fs::read_to_string(repository().join(LOG)).unwrap(), OWN);
        for version in log.versions() {
            convelo_attest::Policy::from_json(&log.policy(version).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_release_is_all_of_its_sizes() {
        let log = Log::parse(&sample()).unwrap();
        assert_eq!(log.versions(), ["0.2.0", "0.2.1"]);
        let policy = log.policy("0.2.0").unwrap();
        let enclaves = policy["enclave"].as_array().unwrap();
        let names: Vec<_> = enclaves.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "convelo-service 0.2.0 (3G, 4 workers, Gramine 1.9-1)",
                "convelo-service 0.2.0 (12G, 16 workers, Gramine 1.9-1)"
            ]
        );
        assert_eq!(enclaves[0]["mr_enclave"], "3d".repeat(32));
        assert_eq!(enclaves[1]["mr_enclave"], "5b".repeat(32));
        assert_eq!(enclaves[1]["minimum_isv_svn"], 2);
        assert!(convelo_attest::Policy::from_json(&policy).is_ok());
        assert_eq!(log.policy("0.2"), None);
        assert_eq!(log.policy("0.3.0"), None);
    }

    #[test]
    fn notes_are_of_their_release() {
        let log = Log::parse(&sample()).unwrap();
        let notes: Vec<_> = log.notes("0.2.0").map(Note::words).collect();
        assert_eq!(notes.len(), 2);
        assert!(
            notes[0].starts_with("ADVISORY of 2027-02-01 about 0.2.0: Jobs of"),
            "{}",
            notes[0]
        );
        assert!(notes[1].starts_with("WITHDRAWN of 2027-03-09 about 0.2.0: "), "{}", notes[1]);
        assert_eq!(log.notes("0.2.0").filter(|note| note.withdraws()).count(), 1);
        assert_eq!(log.notes("0.2.1").count(), 0);
    }

    /// One change to the tests' log, and what must be said of it.
    #[test]
    fn what_is_no_log() {
        let sample = sample();
        let last = sample.rfind("[[release]]").unwrap();
        for (from, to, words) in [
            ("version = \"0.2.1\"", "version = \"0.2\"", "a version has three numbers"),
            ("version = \"0.2.1\"", "version = \"0.02.1\"", "a version has three numbers"),
            ("date = \"2027-02-03\"", "date = \"2027-02-30\"", "is no date"),
            ("date = \"2027-02-03\"", "date = \"3 February\"", "is no date"),
            ("date = \"2027-02-03\"", "date = \"2027-01-14\"", "older than the one before"),
            ("date = \"2027-03-09\"", "date = \"2027-01-31\"", "older than what stands before"),
            ("mr_enclave = \"7979", "mr_enclave = \"797", "mr_enclave must be 64"),
            ("mr_enclave = \"7979", "mr_enclave = \"797A", "mr_enclave must be 64"),
            ("program_sha256 = \"6a", "program_sha256 = \"0x", "program_sha256 must be 64"),
            ("isv_svn = 3", "isv_svn = 70000", "line "),
            ("isv_svn = 3\n", "", "missing field `isv_svn`"),
            ("isv_svn = 3", "isv_svn = 3\nmr_signer = \"none\"", "unknown field `mr_signer`"),
            ("gramine = \"1.9-1\"", "gramine = \"the newest\"", "gramine must be"),
            ("memory = \"3G\"", "memory = \"3T\"", "memory must be"),
            ("memory = \"3G\"", "memory = \"G\"", "memory must be"),
            ("memory = \"3G\"", "memory = \"3é\"", "memory must be"),
            ("memory = \"3G\"", "memory = \"\"", "memory must be"),
            ("workers = 4", "workers = 0", "workers must be"),
            ("kind = \"withdrawn\"", "kind = \"recalled\"", "unknown variant `recalled`"),
            ("[[note]]\nversion = \"0.2.0\"", "[[note]]\nversion = \"0.9.0\"", "no such release"),
            ("text = \"It took", "text = \"It\\ntook", "must be one line"),
            (
                "text = \"It took evidence of the day before. Use 0.2.1.\"",
                "text = \" \"",
                "must be one line",
            ),
        ] {
            let (before, after) = sample.split_at(last);
            assert!(after.contains(from), "{from}");
            let broken = format!("{before}{}", after.replacen(from, to, 1));
            let said = Log::parse(&broken).unwrap_err();
            assert!(said.contains(words), "{to}: {said}");
        }
        let (before, after) = sample.split_at(last);
        let other = after.replacen("0.2.1", "0.2.0", 1).replace("workers = 4", "workers = 8");
        let said = Log::parse(&format!("{before}{other}")).unwrap_err();
        assert!(said.contains("its program is not that of"), "{said}");
        let twice = sample.replace(&"79".repeat(32), &"5b".repeat(32));
        assert!(Log::parse(&twice).unwrap_err().contains("that of another entry"));
        let again = sample.replace("12G", "3G").replace("workers = 16", "workers = 4");
        assert!(Log::parse(&again).unwrap_err().contains("another entry says"));
        let third = sample.split("[[release]]").nth(2).unwrap().split("[[note]]").next().unwrap();
        let third = third.replace(&"5b".repeat(32), &"1a".repeat(32)).replace("12G", "6G");
        let apart = format!("{sample}\n[[release]]{}", third.replace("2027-01-15", "2027-04-01"));
        assert!(Log::parse(&apart).unwrap_err().contains("another version stands between"));
    }

    fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
        let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How many versions a file has had, counting that in the directory, and where one does not begin with the
    /// one before. Nothing where there is no history.
    fn history(directory: &Path, file: &str) -> Option<(usize, Vec<String>)> {
        let log = git(directory, &["log", "--full-history", "--format=%H %P", "HEAD", "--", file])?;
        let at = |commit: &str| git(directory, &["show", &format!("{commit}:{file}")]);
        let mut offences = Vec::new();
        let mut compare = |name: &str, older: Option<String>, newer: Option<&str>| {
            if let Some(older) = older
                && !newer.is_some_and(|newer| newer.starts_with(&older))
            {
                offences.push(format!("{name} changes what stood in {file} before it"));
            }
        };
        let mut versions = 0;
        for line in log.lines() {
            let (commit, parents) = line.split_once(' ').unwrap_or((line, ""));
            let newer = at(commit);
            versions += 1;
            for parent in parents.split_whitespace() {
                compare(commit, at(parent), newer.as_deref());
            }
        }
        let here = fs::read_to_string(directory.join(file)).ok();
        compare("what is not committed", at("HEAD"), here.as_deref());
        Some((versions + 1, offences))
    }

    #[test]
    fn the_log_only_grows() {
        let repository = repository();
        let Some((_, offences)) = history(&repository, LOG) else {
            eprintln!("not tested: there is no git history to compare {LOG} with");
            return;
        };
        if git(&repository, &["rev-parse", "--is-shallow-repository"]).as_deref() != Some("false\n")
        {
            eprintln!(
                "tested in part: the git history is shallow, so older versions of {LOG} are not here"
            );
        }
        assert_eq!(offences, Vec::<String>::new());
    }

    #[test]
    fn an_entry_that_was_changed_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        if git(directory, &["init", "--quiet"]).is_none() {
            return;
        }
        let file = directory.join("log.toml");
        let commit = |text: &str| {
            fs::write(&file, text).unwrap();
            git(directory, &["add", "log.toml"]).unwrap();
            let author = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
            let commit = ["-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "x"];
            git(directory, &[&author[..], &commit].concat()).unwrap();
        };
        let said = || history(directory, "log.toml").unwrap();
        assert_eq!(history(directory, "log.toml"), None);
        commit("one\n");
        commit("one\ntwo\n");
        assert_eq!(said(), (3, Vec::new()));
        fs::write(&file, "one\ntwo\nthree\n").unwrap();
        assert_eq!(said().1, Vec::<String>::new());
        fs::write(&file, "one\n2\n").unwrap();
        assert_eq!(said().1, ["what is not committed changes what stood in log.toml before it"]);
        commit("one\n2\n");
        assert_eq!(said().1.len(), 1);
        commit("one\n2\nthree\n");
        assert_eq!(said().1.len(), 1, "a later version that only grows does not hide it");
        fs::remove_file(&file).unwrap();
        assert_eq!(said().1.len(), 2);
    }
}
