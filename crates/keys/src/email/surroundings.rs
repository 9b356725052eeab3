//! What people and programs put around an address.

/// The address in a text such as `"Jones, Bo" <bo@example.org>`, or the text as it is.
pub(super) fn without(text: &str) -> &str {
    let mut text = text;
    loop {
        let bare = without_one(text).trim();
        if bare.len() == text.len() {
            return text;
        }
        text = bare;
    }
}

/// Whether a character opens or closes a quotation.
pub(super) fn is_quote(c: char) -> bool {
    matches!(
        c,
        '"' | '\'' | '`' | '´' | '«' | '»' | '\u{2018}'..='\u{201f}' | '\u{2039}' | '\u{203a}'
    )
}

fn without_one(text: &str) -> &str {
    if let Some(address) = without_scheme(text) {
        return address;
    }
    if let Some((name, address)) = bracketed(text, '<', '>') {
        let name = name.trim_matches(|c: char| is_quote(c) || c.is_whitespace());
        if !name.contains(['<', '>']) && is_same_or_none(name, address) {
            return address;
        }
    }
    if let Some((before, inside)) = bracketed(text, '(', ')') {
        match (before.contains('@'), inside.contains('@')) {
            (true, false) => return before,
            (false, true) => return inside,
            _ => (),
        }
    }
    for (open, close) in [('[', ']'), ('{', '}')] {
        if let Some(("", inside)) = bracketed(text, open, close) {
            return inside;
        }
    }
    let text = text.trim_start_matches([',', ';', ':', '<']);
    let text = text.trim_end_matches(|c| {
        matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '>' | '。') || (c != '"' && is_quote(c))
    });
    let text = if text.contains('@') { text.strip_suffix('"').unwrap_or(text) } else { text };
    // A local part in quotes keeps them.
    if text.starts_with('"') && text.contains("\"@") {
        return text;
    }
    text.trim_start_matches(is_quote)
}

/// Without `mailto:` (RFC 6068), and what it says about the message.
fn without_scheme(text: &str) -> Option<&str> {
    let (scheme, address) = text.split_at_checked("mailto:".len())?;
    scheme.eq_ignore_ascii_case("mailto:").then(|| address.split('?').next().unwrap_or(address))
}

/// What stands before the last pair of brackets and in it, if it ends the text.
fn bracketed(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    text.strip_suffix(close)?.rsplit_once(open)
}

/// Whether a name is not an address itself, unless the same.
fn is_same_or_none(name: &str, address: &str) -> bool {
    !name.contains('@') || name.eq_ignore_ascii_case(address)
}
