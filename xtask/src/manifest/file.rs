//! A manifest as a file: a template with its placeholders, or what `gramine-manifest` makes of it.

use std::fmt;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::rules::{self, PROGRAM, Stage};
use super::sizes::Sizes;

/// Each placeholder that a template may have: what `build.sh` defines.
const PLACEHOLDERS: [&str; 6] = ["memory", "workers", "enclave", "threads", "prodid", "svn"];

/// What a template is rendered with: memory, workers, product and security version, no two numbers of a
/// trial the same. It must hold for all of these, so that nothing which should follow from them is written
/// out, or follows from another.
const TRIALS: [(&str, &str, &str, &str); 3] =
    [("3G", "4", "7", "5"), ("900M", "1", "0", "65535"), ("12G", "64", "65535", "0")];

/// Whether a template holds, whatever it is rendered with.
pub(crate) fn check_template(text: &str) -> Result<(), Vec<String>> {
    let problems = misplaced(text);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut problems = Vec::new();
    for (memory, workers, prodid, svn) in TRIALS {
        let sizes = Sizes::new(memory, workers).map_err(|problem| vec![problem])?;
        let rendered = render(text, &sizes, prodid, svn);
        let with = format!("rendered with --memory {memory} --workers {workers}: ");
        let checked = read(&rendered).and_then(|table| {
            let sizes = rules::check(&table, Stage::Template)?;
            Ok((table, sizes))
        });
        match checked {
            Ok((table, found)) if found == sizes => {
                for (key, value) in [("isvprodid", prodid), ("isvsvn", svn)] {
                    let sgx = table.get("sgx").and_then(|sgx| sgx.get(key));
                    if sgx.and_then(Value::as_integer).map(|it| it.to_string()).as_deref()
                        != Some(value)
                    {
                        let name = &key[3..];
                        problems.push(format!(
                            "sgx.{key}: write {{{{ {name} }}}}, as build.sh fills it in"
                        ));
                    }
                }
            }
            Ok(_) => problems.push(format!(
                "{with}its arguments are not these: write {{{{ memory }}}} and {{{{ workers }}}}"
            )),
            Err(found) => problems.extend(found.iter().map(|problem| format!("{with}{problem}"))),
        }
        if !problems.is_empty() {
            break;
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Fills in a template's placeholders, as `build.sh` has `gramine-manifest` do it.
pub(crate) fn render(text: &str, sizes: &Sizes, prodid: &str, svn: &str) -> String {
    let values = [
        sizes.memory().to_owned(),
        sizes.workers().to_string(),
        sizes.enclave(),
        sizes.threads().to_string(),
        prodid.to_owned(),
        svn.to_owned(),
    ];
    PLACEHOLDERS.iter().zip(values).fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{ {name} }}}}"), &value)
    })
}

/// Whatever the renderer would read in a template, but for the placeholders.
fn misplaced(text: &str) -> Vec<String> {
    let mut rest = text.to_owned();
    for name in PLACEHOLDERS {
        rest = rest.replace(&format!("{{{{ {name} }}}}"), "");
    }
    let lines = rest.lines().enumerate();
    let odd = lines.filter(|(_, line)| ["{{", "{%", "{#"].iter().any(|mark| line.contains(mark)));
    odd.map(|(number, line)| {
        let known = PLACEHOLDERS.join(" }}, {{ ");
        let environment = if line.contains("env") {
            " (env is the environment of whoever renders it)"
        } else {
            ""
        };
        format!(
            "line {}: a template has no placeholders but {{{{ {known} }}}}{environment}",
            number + 1
        )
    })
    .collect()
}

/// A rendered manifest that holds.
pub(crate) struct Rendered {
    sizes: Sizes,
    program: String,
    libos: (String, String),
}

/// Whether a rendered manifest holds.
pub(crate) fn check_rendered(text: &str) -> Result<Rendered, Vec<String>> {
    let table = read(text)?;
    let sizes = rules::check(&table, Stage::Rendered)?;
    let text = |value: Option<&Value>| {
        value.and_then(Value::as_str).map(str::to_owned).ok_or_else(|| vec!["no text".to_owned()])
    };
    let entrypoint = table.get("loader").and_then(|loader| loader.get("entrypoint"));
    let libos = |key| text(entrypoint.and_then(|entrypoint| entrypoint.get(key)));
    let trusted = table.get("sgx").and_then(|sgx| sgx.get("trusted_files")?.get(0)?.get("sha256"));
    Ok(Rendered { sizes, program: text(trusted)?, libos: (libos("uri")?, libos("sha256")?) })
}

impl Rendered {
    /// Whether the program below this root is the one that the manifest trusts.
    pub(crate) fn compare(&self, root: &Path) -> Result<(), String> {
        let path = root.join(PROGRAM.trim_start_matches('/'));
        let bytes = fs::read(&path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let found = hex::encode(Sha256::digest(bytes));
        if found == self.program {
            return Ok(());
        }
        Err(format!(
            "sgx.trusted_files: {} has the hash {found}, and the manifest trusts {}: render it again",
            path.display(),
            self.program
        ))
    }
}

impl fmt::Display for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sizes, program, libos: (uri, hash) } = self;
        write!(
            f,
            "memory {}, workers {}, max_threads {}, an enclave of {}; trusts the program {program} and \
             Gramine's {uri}, {hash}",
            sizes.memory(),
            sizes.workers(),
            sizes.threads(),
            sizes.enclave()
        )
    }
}

fn read(text: &str) -> Result<Table, Vec<String>> {
    if text.starts_with('\u{feff}') {
        return Err(vec![
            "it begins with a byte order mark, which Gramine does not read".to_owned(),
        ]);
    }
    text.parse::<Table>().map_err(|error| {
        let words = error.message().trim().replace('\n', ", ");
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        vec![match line {
            Some(line) => format!("line {line}: this is not TOML: {words}"),
            None => format!("this is not TOML: {words}"),
        }]
    })
}
