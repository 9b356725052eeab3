//! `cargo xtask sbom`: what a program is made of, as a CycloneDX document.
//!
//! Cargo resolves features for the package alone, as a build of it does, so what other members of the
//! workspace would add is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use crate::python::repository;
use crate::test::cargo;

/// Writes the document for a package of the workspace, as built for this machine's platform; says so.
pub(crate) fn write(package: &str, output: &str) -> Result<String, String> {
    let tree = tree(package)?;
    let lock = fs::read_to_string(repository().join("Cargo.lock"))
        .map_err(|error| format!("Cargo.lock cannot be read: {error}"))?;
    let document = document(&tree, &checksums(&lock)).ok_or("cargo's tree cannot be read")?;
    let text = format!("{document:#}\n");
    fs::write(output, text).map_err(|error| format!("{output}: {error}"))?;
    Ok(format!("wrote {output}"))
}

/// All that is compiled for the package itself, procedural macros among it, one crate a line.
fn tree(package: &str) -> Result<String, String> {
    let output = cargo()
        .args(["tree", "--locked", "--package", package, "--edges", "normal"])
        .args(["--prefix", "depth", "--format", "\t{p}\t{l}"])
        .current_dir(repository())
        .output()
        .map_err(|error| format!("cargo tree cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

/// Name and version.
type Crate = (String, String);

/// The SHA-256 of each crate's archive.
fn checksums(lock: &str) -> BTreeMap<Crate, String> {
    let packages = lock.split("[[package]]").skip(1);
    let field = |package: &str, name: &str| {
        let mut lines = package.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""))?;
        Some(value.strip_suffix('"')?.to_owned())
    };
    let known = packages.filter_map(|package| {
        let id = (field(package, "name")?, field(package, "version")?);
        Some((id, field(package, "checksum")?))
    });
    known.collect()
}

/// The document; none if the tree is not what `cargo tree` prints.
fn document(tree: &str, checksums: &BTreeMap<Crate, String>) -> Option<Value> {
    let mut licences = BTreeMap::new();
    let mut uses: BTreeMap<Crate, BTreeSet<Crate>> = BTreeMap::new();
    let mut above: Vec<Crate> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut fields = line.split('\t');
        let depth: usize = fields.next()?.parse().ok()?;
        let mut words = fields.next()?.split(' ');
        let id = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
        // A crate whose own lines are above ends in a star.
        let licence = fields.next()?.trim_end_matches(" (*)");
        above.truncate(depth);
        if let Some(user) = above.last() {
            uses.entry(user.clone()).or_default().insert(id.clone());
        }
        uses.entry(id.clone()).or_default();
        licences.insert(id.clone(), licence.to_owned());
        above.push(id);
    }
    let program = above.first()?.clone();
    let component = |id: &Crate| {
        let (name, version) = id;
        let mut component = json!({
            "type": if *id == program { "application" } else { "library" },
            "bom-ref": reference(id),
            "name": name,
            "version": version,
            "purl": reference(id),
        });
        let licence = licences.get(id).map_or("", String::as_str);
        if !licence.is_empty() {
            // Some crates still write the older form.
            let expression = licence.replace('/', " OR ");
            component["licenses"] = json!([{ "expression": expression }]);
        }
        if let Some(checksum) = checksums.get(id) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        component
    };
    let dependencies = uses.iter().map(|(user, used)| {
        json!({ "ref": reference(user), "dependsOn": used.iter().map(reference).collect::<Vec<_>>() })
    });
    let libraries = uses.keys().filter(|id| **id != program);
    Some(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(&program) },
        "components": libraries.map(component).collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

/// The crate's package URL.
fn reference((name, version): &Crate) -> String {
    // The only character of versions that means something else in a URL.
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
0\tprogram v0.1.0 (/somewhere)\tApache-2.0
1\tserde v1.0.1\tMIT/Apache-2.0
2\tserde_derive v1.0.1 (proc-macro)\tMIT OR Apache-2.0
1\tzstd v2.1.3+zstd.1.5.7\t
2\tserde v1.0.1\tMIT/Apache-2.0 (*)
";

    const LOCK: &str = "\
version = 4

[[package]]
name = \"program\"
version = \"0.1.0\"
dependencies = [
 \"serde\",
]

[[package]]
name = \"serde\"
version = \"1.0.1\"
source = \"registry\"
checksum = \"00ff\"
";

    #[test]
    fn a_document_has_every_crate_once_with_what_it_uses() {
        let document = document(TREE, &checksums(LOCK)).unwrap();
        assert_eq!(document["metadata"]["component"]["name"], "program");
        assert_eq!(document["metadata"]["component"]["type"], "application");
        let components = document["components"].as_array().unwrap();
        let names: Vec<_> = components.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["serde", "serde_derive", "zstd"]);
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(components[0]["hashes"][0]["content"], "00ff");
        assert_eq!(components[2]["purl"], "pkg:cargo/zstd@2.1.3%2Bzstd.1.5.7");
        assert!(components[2].get("licenses").is_none() && components[2].get("hashes").is_none());
        let uses = |of: &str| {
            let all = document["dependencies"].as_array().unwrap();
            all.iter().find(|one| one["ref"] == of).unwrap()["dependsOn"].clone()
        };
        assert_eq!(
            uses("pkg:cargo/program@0.1.0"),
            json!(["pkg:cargo/serde@1.0.1", "pkg:cargo/zstd@2.1.3%2Bzstd.1.5.7"])
        );
        assert_eq!(uses("pkg:cargo/zstd@2.1.3%2Bzstd.1.5.7"), json!(["pkg:cargo/serde@1.0.1"]));
        assert_eq!(uses("pkg:cargo/serde@1.0.1"), json!(["pkg:cargo/serde_derive@1.0.1"]));
        assert_eq!(uses("pkg:cargo/serde_derive@1.0.1"), json!([]));
    }

    #[test]
    fn what_cargo_does_not_print_is_no_document() {
        for wrong in ["", "program v0.1.0", "0\tprogram\tMIT", "0\tprogram 0.1.0\tMIT"] {
            assert!(document(wrong, &BTreeMap::new()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_measured_program_is_made_of_what_it_uses_and_nothing_of_the_tests() {
        let document = document(&tree("convelo-service").unwrap(), &BTreeMap::new()).unwrap();
        let components = document["components"].as_array().unwrap();
        let has = |name: &str| components.iter().any(|one| one["name"] == name);
        assert!(has("rustls") && has("convelo-psi"), "{components:?}");
        assert!(!has("convelo-simulator") && !has("clap"), "{components:?}");
    }
}
