//! Where in a text something is wrong, for error messages.

use convelo_untrusted::shown;

/// 1-based line and column (in characters) of a byte offset.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// The message of a JSON error, without the position that it repeats at its end. It may repeat what
/// the text says.
pub(crate) fn json_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    shown(text.rsplit_once(" at line ").map_or(text.as_str(), |parts| parts.0))
}
