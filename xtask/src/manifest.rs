//! `cargo xtask manifest`: whether a manifest of `convelo-service` for Gramine holds, and how large an
//! enclave is. Gramine's own check asks whether a manifest can be read, not whether it protects anything.

mod file;
mod rules;
mod sizes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) use sizes::Sizes;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manifest {
    Sizes(Sizes),
    Lint { root: Option<PathBuf>, files: Vec<PathBuf> },
}

const DEFAULT_MEMORY: &str = "1G";
const DEFAULT_WORKERS: &str = "4";

/// Reads the arguments behind `manifest`.
pub(crate) fn parse(arguments: &[&str]) -> Result<Manifest, String> {
    match arguments {
        ["sizes", options @ ..] => {
            let (mut memory, mut workers) = (DEFAULT_MEMORY, DEFAULT_WORKERS);
            let mut options = options.iter();
            while let Some(&option) = options.next() {
                let to = match option {
                    "--memory" => &mut memory,
                    "--workers" => &mut workers,
                    other => return Err(format!("manifest sizes does not know {other:?}")),
                };
                *to = options.next().ok_or_else(|| format!("{option} needs a value"))?;
            }
            Ok(Manifest::Sizes(Sizes::new(memory, workers)?))
        }
        ["lint", "--root", root, files @ ..] => lint_of(Some(root), files),
        ["lint", files @ ..] => lint_of(None, files),
        [] => Err("manifest needs what to do: lint, sizes".to_owned()),
        [other, ..] => Err(format!("manifest does not know {other:?}")),
    }
}

fn lint_of(root: Option<&str>, files: &[&str]) -> Result<Manifest, String> {
    if files.is_empty() {
        return Err("manifest lint needs files".to_owned());
    }
    if let Some(option) = files.iter().find(|file| file.starts_with('-')) {
        return Err(format!("manifest lint does not know {option:?}"));
    }
    Ok(Manifest::Lint {
        root: root.map(PathBuf::from),
        files: files.iter().map(PathBuf::from).collect(),
    })
}

/// Does it. A file that does not hold is a failure, and all that is wrong with it is said.
pub(crate) fn run(what: &Manifest) -> ExitCode {
    match what {
        Manifest::Sizes(sizes) => {
            println!("{sizes}");
            ExitCode::SUCCESS
        }
        Manifest::Lint { root, files } => {
            let mut holds = true;
            for path in files {
                match lint(path, root.as_deref()) {
                    Ok(what) => println!("{}: holds: {what}", shown(&path.to_string_lossy())),
                    Err(problems) => {
                        holds = false;
                        for problem in problems {
                            eprintln!("{}: {}", shown(&path.to_string_lossy()), shown(&problem));
                        }
                    }
                }
            }
            if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

/// What a manifest or the name of its file has in it may be anybody's: no character of it does anything on a
/// terminal.
fn shown(problem: &str) -> String {
    let plain = |character: &char| matches!(character, ' '..='~');
    let show = |character: char| match Some(character).filter(plain) {
        Some(plain) => plain.to_string(),
        None => character.escape_unicode().to_string(),
    };
    problem.chars().map(show).collect()
}

/// What a manifest is, in words, or all that is wrong with it. With the root under which the program is
/// installed, a rendered manifest must name the hash of that very file.
fn lint(path: &Path, root: Option<&Path>) -> Result<String, Vec<String>> {
    let cannot = |error: std::io::Error| {
        vec![match error.kind() {
            std::io::ErrorKind::InvalidData => "it is not text".to_owned(),
            _ => format!("it cannot be read: {error}"),
        }]
    };
    let text = fs::read_to_string(path).map_err(cannot)?;
    if path.extension().is_some_and(|extension| extension == "template") {
        return file::check_template(&text).map(|()| "a template".to_owned());
    }
    let rendered = file::check_rendered(&text)?;
    if let Some(root) = root {
        rendered.compare(root).map_err(|problem| vec![problem])?;
    }
    Ok(rendered.to_string())
}

#[cfg(test)]
mod tests;
