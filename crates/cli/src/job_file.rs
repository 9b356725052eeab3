//! The template of a job file.

use convelo_party::UNKNOWN_VALUES;
use convelo_psi::Protocol;

/// What intersects the sets of the job.
#[derive(Clone, Copy)]
pub(crate) enum Engine<'e> {
    /// A service at this address, under this policy, or a placeholder for one.
    Service { address: &'e str, policy: Option<&'e str> },
    /// The parties alone.
    Parties(Protocol),
}

/// A job file with every field and its meaning. Without a policy or parties, it has placeholders
/// that no parser accepts.
pub(crate) fn write(name: &str, engine: Engine<'_>, parties: &[(String, String)]) -> String {
    let (mode, service, minimum, count) = match engine {
        Engine::Service { address, policy } => {
            let service = SERVICE
                .replace("{service}", address)
                .replace("{policy}", of_service(policy).trim_end());
            (ATTESTED.to_owned(), service, MINIMUM, "2 to 64 parties")
        }
        Engine::Parties(protocol) => {
            let count = match protocol {
                Protocol::Vole => "2 to 16 parties",
                Protocol::Ecdh => "two parties",
            };
            (DIRECT.replace("{mode}", protocol.as_str()), String::new(), "", count)
        }
    };
    let parties: String = if parties.is_empty() {
        PLACEHOLDER_PARTIES.to_owned()
    } else {
        let entry = |(name, key): &(String, String)| {
            format!("[[party]]\nname = \"{name}\"\nkey = \"{key}\"\n\n")
        };
        parties.iter().map(entry).collect()
    };
    let parties = match engine {
        Engine::Service { .. } => parties,
        Engine::Parties(_) => {
            let reachable = "key = \"";
            let first =
                parties.find(reachable).and_then(|at| parties[at..].find('\n').map(|end| at + end));
            let (before, after) = parties.split_at(first.unwrap_or(parties.len()));
            format!("{before}\n{REACHABLE}{after}")
        }
    };
    TEMPLATE
        .replace("{name}", name)
        .replace("{mode}", mode.trim_end())
        .replace("{service}", &service)
        .replace("{minimum}", minimum)
        .replace("{count}", count)
        .replace("{parties}", parties.trim_end())
        .replace("{unknown}", &unknown())
}

/// What every party accepts as the service's evidence.
fn of_service(policy: Option<&str>) -> String {
    policy.map_or_else(
        || PLACEHOLDER_POLICY.to_owned(),
        // The policy's tables become tables of [service.policy].
        |text| {
            text.replace("[[enclave]]", "[[service.policy.enclave]]")
                .replace("[[trust_domain]]", "[[service.policy.trust_domain]]")
        },
    )
}

/// What stands in the template where something is to be filled in.
pub(crate) const REPLACE: &str = "REPLACE";

/// The values that mean "unknown", as lines of a list.
fn unknown() -> String {
    let mut lines = vec![String::new()];
    for value in UNKNOWN_VALUES {
        let value = format!("{value:?},");
        let last = lines.last_mut().expect("there is one");
        if last.len() + value.len() > UNKNOWN_WIDTH {
            lines.push(value);
        } else {
            last.push_str(if last.is_empty() { "" } else { " " });
            last.push_str(&value);
        }
    }
    lines.join("\n    ")
}

/// How wide a line of that list is.
const UNKNOWN_WIDTH: usize = 95;

const PLACEHOLDER_POLICY: &str = "\
version = 1
tcb_statuses = [\"UpToDate\"]

[[service.policy.enclave]]
name = \"convelo-service 0.1.0\"
mr_enclave = \"REPLACE: the measurement of the service, 64 hexadecimal digits\"
isv_prod_id = 0
minimum_isv_svn = 0
";

const PLACEHOLDER_PARTIES: &str = "\
[[party]]
name = \"alice\"
key = \"REPLACE: what 'convelo keygen alice' prints, sha256:…\"

[[party]]
name = \"bob\"
key = \"REPLACE: what 'convelo keygen bob' prints, sha256:…\"
";

const ATTESTED: &str = "\
# How the sets are joined. \"attested\": by a service inside an enclave, which every party verifies
# before sending anything and which sees only pseudonyms.
mode = \"attested\"

# Time from the first party's arrival to the result; early parties wait this long (s, m, h, d).
";

const DIRECT: &str = "\
# How the sets are joined: by the parties among themselves, without a service and without special
# hardware. \"vole\" (VOLE-PSI) is the faster one and rests on nothing that a quantum computer is known
# to break; \"ecdh\" (Diffie-Hellman on Curve25519) can also reveal a count alone, for two parties. Both assume that the
# parties keep to the protocol; docs/protocols.md says what that means.
mode = \"{mode}\"

# Time from a party's start to its result; early parties wait this long (s, m, h, d).
";

const SERVICE: &str = "\
# Keys whose answers all parties know, by which each finds out whether the service answers wrongly about
# a stated part of the keys: 1 % of them or more, with 1400 of each kind.
# canaries = 1400

[service]
address = \"{service}\"
# Whose evidence is verified: \"service\", or \"two-way\" (the parties run in enclaves too; say what to
# accept from them in [provider.policy]), or \"provider\" (nobody verifies the service).
verify = \"service\"
# TLS with the service must be secret from a later quantum computer, too; if absent, that is preferred.
# key_exchange = \"X25519MLKEM768\"

# What every party accepts as the service's evidence.
[service.policy]
{policy}

";

const MINIMUM: &str = "\
# A result of fewer keys than this is withheld from everybody; 0 withholds nothing.
minimum = 0
";

const REACHABLE: &str = "\
# Where others reach it; of every two parties, one must be reachable. Or say it at run time, with
# --listen and --peer.
# address = \"alice.example.org:7444\"";

const TEMPLATE: &str = "\
# A convelo job: who intersects what, and who learns what. Every party runs the same file: a job is
# identified by a digest over all of it, and parties with different files never start. Comments and
# the order of entries do not matter.

version = 1
name = \"{name}\"

{mode}
deadline = \"30m\"

# Cap on every party's number of distinct keys. It stops a partner who guesses with a dictionary,
# before the join. A [[party]] may have a maximum_keys of its own.
maximum_keys = 10000000

# Hides how large the sets are: every party pads its set with random values to a multiple of this
# number, so that others learn no more than that multiple.
# pad_keys_to = 1000000

{service}# The key to match on, one [[key]] for each of its parts; a row matches only if all parts agree. Every
# party says at run time which of its columns holds it. All parties normalise it in the same way, by these
# steps in order (docs/job-file.md has examples of each):
#   email, email:uid2, email:google     an address; UID2's and Google's rules about dots and +
#   phone:49                            a number; without a country code, it is dialled in +49
#   digits, integer, date:dmy           an identifier, a whole number, a day
#   plain, fold, spaces, ascii          names: punctuation, letter case, white space, ü as ue
#   trim, nfkc, lowercase               anything else
[[key]]
name = \"email\"
normalise = [\"email\"]
# Values that mean \"unknown\", whatever their letter case: their rows count as rows without a key.
ignore = [
    {unknown}
]

[reveal]
# What is learned: \"intersection\" (which of your own keys every party has) or \"count\" (how many).
what = \"intersection\"
# Who learns it; leave this out for everybody.
# to = [\"alice\"]
{minimum}
# Who takes part: {count}, each with the fingerprint of its key.
{parties}
";

#[cfg(test)]
mod tests {
    use convelo_attest::Policy;
    use convelo_psi::{Job, KeyId};

    use super::*;

    #[test]
    fn the_template_is_refused_until_it_is_filled_in() {
        let text = write("j", Engine::Service { address: "h:1", policy: None }, &[]);
        assert!(text.matches("REPLACE").count() == 3);
        assert!(Job::from_toml(&text).is_err());
    }

    #[test]
    fn a_filled_template_is_a_job() {
        let party = |name: &str| (name.to_owned(), KeyId::of_spki(name.as_bytes()).to_string());
        let policy = format!(
            "version = 1\n[[enclave]]\nname = \"x\"\nmr_enclave = \"{}\"\n",
            "ab".repeat(32)
        );
        let engine = Engine::Service { address: "h:1", policy: Some(&policy) };
        let text = write("j", engine, &[party("a"), party("b")]);
        let job = Job::from_toml(&text).unwrap();
        assert_eq!(job.parties().count(), 2);
        let policy = job.service().unwrap().policy().unwrap();
        assert!(!Policy::from_json(&policy.read()).unwrap().is_simulated());
    }
    #[test]
    fn a_template_without_a_service() {
        let party = |name: &str| (name.to_owned(), KeyId::of_spki(name.as_bytes()).to_string());
        for protocol in [Protocol::Vole, Protocol::Ecdh] {
            let text = write("j", Engine::Parties(protocol), &[party("a"), party("b")]);
            let job = Job::from_toml(&text).unwrap();
            assert_eq!(job.protocol(), Some(protocol));
            let reachable = text.replace("# address = ", "address = ");
            let job = Job::from_toml(&reachable).unwrap();
            assert_eq!(job.party("a").unwrap().address.as_deref(), Some("alice.example.org:7444"));
        }
        let text = write("j", Engine::Parties(Protocol::Vole), &[]);
        assert!(text.matches("REPLACE").count() == 2 && Job::from_toml(&text).is_err());
    }
}
