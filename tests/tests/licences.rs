//! Checks every package of the tree against `deny.toml`: its licence, its source, its name.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use toml::Table;

use crate::metadata::{cargo_metadata, packages, repository, text};

#[test]
fn every_licence_is_allowed() {
    let allowed = allowed_licences(&deny_toml());
    let metadata = cargo_metadata();
    let refused: Vec<String> = packages(&metadata)
        .iter()
        .filter_map(|package| {
            let problem = match package["license"].as_str() {
                None => "it has no licence expression".to_owned(),
                Some(expression) => match is_satisfied(expression, &allowed) {
                    Ok(true) => return None,
                    Ok(false) => format!("{expression} cannot be met by licences of deny.toml"),
                    Err(problem) => format!("{expression}: {problem}"),
                },
            };
            Some(format!("{} {}: {problem}", text(package, "name"), text(package, "version")))
        })
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn every_allowed_licence_is_needed() {
    let allowed = allowed_licences(&deny_toml());
    let metadata = cargo_metadata();
    for licence in &allowed {
        let without = allowed.iter().filter(|other| *other != licence).cloned().collect();
        let all_met = packages(&metadata)
            .iter()
            .filter_map(|package| package["license"].as_str())
            .all(|expression| is_satisfied(expression, &without).unwrap());
        assert!(!all_met, "no package needs {licence}: take it off the list in deny.toml");
    }
}

#[test]
fn no_banned_package() {
    let deny = deny_toml();
    let banned: Vec<&str> = deny["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["crate"].as_str().unwrap())
        .collect();
    assert!(banned.contains(&"openssl") && banned.contains(&"native-tls"));
    let metadata = cargo_metadata();
    for package in packages(&metadata) {
        let name = text(package, "name");
        assert!(!banned.contains(&name), "{name} is banned by deny.toml");
    }
}

#[test]
fn every_package_is_ours_or_from_an_allowed_registry() {
    let deny = deny_toml();
    let registries: Vec<String> = deny["sources"]["allow-registry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|registry| format!("registry+{}", registry.as_str().unwrap()))
        .collect();
    let metadata = cargo_metadata();
    let members = metadata["workspace_members"].as_array().unwrap();
    for package in packages(&metadata) {
        let known = match &package["source"] {
            Value::String(source) => registries.contains(source),
            _ => members.contains(&package["id"]),
        };
        assert!(known, "{} comes from {}", text(package, "name"), package["source"]);
    }
}

/// Every advisory that is not heeded names the package that it is about, as long as that is here.
#[test]
fn every_ignored_advisory_is_about_a_package_of_the_tree() {
    let deny = deny_toml();
    let metadata = cargo_metadata();
    let names: BTreeSet<&str> =
        packages(&metadata).iter().map(|package| text(package, "name")).collect();
    assert_eq!(deny["advisories"]["unmaintained"].as_str(), Some("all"));
    for entry in deny["advisories"]["ignore"].as_array().unwrap() {
        let (id, reason) = (entry["id"].as_str().unwrap(), entry["reason"].as_str().unwrap());
        let about = reason.split_whitespace().next().unwrap_or_default();
        assert!(names.contains(about), "{id}: no package {about} in the tree: remove the entry");
    }
}

fn deny_toml() -> Table {
    fs::read_to_string(repository().join("deny.toml")).unwrap().parse().unwrap()
}

fn allowed_licences(deny: &Table) -> BTreeSet<String> {
    let allowed = deny["licenses"]["allow"].as_array().unwrap();
    allowed.iter().map(|licence| licence.as_str().unwrap().to_owned()).collect()
}

/// Whether allowed licences alone can satisfy an SPDX expression (SPDX 2.3, annex D).
///
/// `/`, which old packages use, means `OR`. `X WITH E` is satisfied only if it is allowed as a
/// whole.
fn is_satisfied(expression: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut parser = Parser { tokens: spaced.split_whitespace().peekable(), allowed };
    let satisfied = parser.any_of()?;
    match parser.tokens.next() {
        None => Ok(satisfied),
        Some(token) => Err(format!("{token:?} was not expected")),
    }
}

struct Parser<'e> {
    tokens: std::iter::Peekable<std::str::SplitWhitespace<'e>>,
    allowed: &'e BTreeSet<String>,
}

impl<'e> Parser<'e> {
    fn any_of(&mut self) -> Result<bool, String> {
        let mut satisfied = self.all_of()?;
        while self.tokens.next_if_eq(&"OR").is_some() {
            satisfied |= self.all_of()?;
        }
        Ok(satisfied)
    }

    fn all_of(&mut self) -> Result<bool, String> {
        let mut satisfied = self.term()?;
        while self.tokens.next_if_eq(&"AND").is_some() {
            satisfied &= self.term()?;
        }
        Ok(satisfied)
    }

    fn term(&mut self) -> Result<bool, String> {
        if self.tokens.next_if_eq(&"(").is_some() {
            let satisfied = self.any_of()?;
            return match self.tokens.next() {
                Some(")") => Ok(satisfied),
                _ => Err("a parenthesis is not closed".to_owned()),
            };
        }
        let licence = self.identifier()?;
        if self.tokens.next_if_eq(&"WITH").is_none() {
            return Ok(self.allowed.contains(licence));
        }
        let exception = self.identifier()?;
        Ok(self.allowed.contains(&format!("{licence} WITH {exception}")))
    }

    fn identifier(&mut self) -> Result<&'e str, String> {
        match self.tokens.next() {
            None => Err("the expression ends too early".to_owned()),
            Some(token @ ("(" | ")" | "AND" | "OR" | "WITH")) => {
                Err(format!("{token:?} was not expected"))
            }
            Some(token) => Ok(token),
        }
    }
}

fn satisfied(expression: &str) -> Option<bool> {
    let allowed = ["MIT", "Apache-2.0", "ISC", "GPL-2.0 WITH Classpath-exception-2.0"];
    is_satisfied(expression, &allowed.map(str::to_owned).into()).ok()
}

#[test]
fn expressions_that_are_met() {
    for expression in [
        "MIT",
        "MIT OR GPL-3.0-only",
        "GPL-3.0-only OR MIT",
        "GPL-3.0-only/MIT",
        "GPL-3.0-only / Apache-2.0",
        "MIT AND ISC",
        "GPL-3.0-only AND MIT OR ISC",
        "ISC OR MIT AND GPL-3.0-only",
        "(GPL-3.0-only OR MIT) AND (ISC OR GPL-3.0-only)",
        "((MIT))",
        "GPL-2.0 WITH Classpath-exception-2.0",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
    ] {
        assert_eq!(satisfied(expression), Some(true), "{expression}");
    }
}

#[test]
fn expressions_that_are_not_met() {
    for expression in [
        "GPL-3.0-only",
        "mit",
        "MIT+",
        "MIT AND GPL-3.0-only",
        "GPL-3.0-only AND MIT",
        "(MIT OR ISC) AND GPL-3.0-only",
        "MIT AND (GPL-3.0-only OR AGPL-3.0-only)",
        "GPL-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "LicenseRef-ours",
    ] {
        assert_eq!(satisfied(expression), Some(false), "{expression}");
    }
}

#[test]
fn expressions_that_are_no_expressions() {
    for expression in [
        "",
        "MIT OR",
        "OR MIT",
        "MIT ISC",
        "(MIT",
        "MIT)",
        "()",
        "MIT AND OR ISC",
        "MIT WITH",
        "MIT or ISC",
        "MIT WITH AND ISC",
    ] {
        assert_eq!(satisfied(expression), None, "{expression}");
    }
}
