//! Why something is not a job.

use convelo_untrusted::shown;

/// Why something is not a job: where, what was found and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", position.map(|at| format!("line {}, column {}: ", at.line, at.column))
    .unwrap_or_default())]
pub struct JobError {
    /// The field, as in the job file; empty if it is none in particular.
    pub(super) field: String,
    message: String,
    pub(super) position: Option<Position>,
}

/// A place in a text; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl JobError {
    /// The error without its position, for a caller that prints `file:line:column:` itself.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where it is in the job file, as far as that is known.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The message may repeat what the job says: its author may be somebody else.
    pub(super) fn new(field: impl Into<String>, message: impl AsRef<str>) -> Self {
        Self { field: field.into(), message: shown(message.as_ref()), position: None }
    }
}
