//! An address of electronic mail: a local part of RFC 5321 or RFC 6531, and a domain of UTS #46.
//!
//! Letter case does not count, in the local part either: no provider of note tells two people apart by
//! it. What people and programs put around an address is dropped. Some providers hold more addresses
//! equal, and others have published rules that say so; those are the profiles.

mod surroundings;

use convelo_psi::Profile;
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use crate::dropped::Reason;
use crate::folding::{lowercase, nfkc};
use crate::surroundings::trim;

/// Longest local part, in bytes (RFC 5321, 4.5.3.1.1).
const LONGEST_LOCAL_PART: usize = 64;

/// Longest domain, in bytes, without a final dot (RFC 1035).
const LONGEST_DOMAIN: usize = 253;

/// Writes an address in its one form.
pub(crate) fn email(text: &mut String, spare: &mut String, profile: Profile) -> Result<(), Reason> {
    if !is_bare(text) {
        nfkc(text, spare);
        trim(text);
        if text.is_empty() {
            return Ok(());
        }
        let address = surroundings::without(text);
        spare.clear();
        spare.push_str(address);
        std::mem::swap(text, spare);
    }
    let at = text.rfind('@').ok_or(Reason::NotOneAddress)?;
    if text.is_ascii() {
        text.make_ascii_lowercase();
    }
    let (local, domain) = (&text.as_bytes()[..at], &text.as_bytes()[at + 1..]);
    if !(is_dot_atom(local) && is_ascii_domain(domain)) {
        rewrite(text, spare, at)?;
    }
    provider(text, spare, profile)
}

/// Whether nothing can stand around the address in this text: it begins with a letter or digit, ends
/// with a letter, and has but one @ and what is found in most addresses.
fn is_bare(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().filter(|byte| !plain(byte)).eq([&b'@'])
}

/// Whether these are the bytes of a dot-atom, `atext` between single dots (RFC 5322, 3.2.3).
fn is_dot_atom(local: &[u8]) -> bool {
    let mut before = b'.';
    for byte in local {
        let fits = match byte {
            b'.' => before != b'.',
            byte => is_atext(*byte),
        };
        if !fits {
            return false;
        }
        before = *byte;
    }
    before != b'.' && local.len() <= LONGEST_LOCAL_PART
}

fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&byte)
}

/// Whether this is a domain in lower case for which nothing has to be looked up: two labels or more of
/// letters, digits and hyphens, of which none is encoded and the last is not a number.
fn is_ascii_domain(domain: &[u8]) -> bool {
    let (mut labels, mut label, mut before) = (0, 0, b'-');
    let mut number = true;
    for byte in domain {
        match byte {
            b'.' if before == b'-' => return false,
            b'.' => {
                (labels, label, before, number) = (labels + 1, 0, b'-', true);
                continue;
            }
            b'-' if label == 0 || (label == 3 && before == b'-') => return false,
            b'a'..=b'z' | b'-' => number = false,
            b'0'..=b'9' => (),
            _ => return false,
        }
        (label, before) = (label + 1, *byte);
        if label > 63 {
            return false;
        }
    }
    labels > 0 && before != b'-' && !number && domain.len() <= LONGEST_DOMAIN
}

/// Writes an address that is not plain ASCII, or none at all; `at` is where its @ is.
fn rewrite(text: &mut String, spare: &mut String, at: usize) -> Result<(), Reason> {
    let domain = Uts46::new()
        .to_ascii(
            &text.as_bytes()[at + 1..],
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::Verify,
        )
        .map_err(|_| Reason::Domain)?
        .into_owned();
    let last = domain.rsplit('.').next().unwrap_or_default();
    if !domain.contains('.') || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Reason::Domain);
    }
    text.truncate(at);
    local_part(text, spare)?;
    text.push('@');
    text.push_str(&domain);
    Ok(())
}

/// Writes the local part in its one form: as a dot-atom if it can be one, else quoted, with no more
/// backslashes than it needs.
fn local_part(text: &mut String, spare: &mut String) -> Result<(), Reason> {
    lowercase(text, spare);
    nfkc(text, spare);
    let quoted = text.starts_with('"');
    if quoted {
        unquote(text, spare)?;
        std::mem::swap(text, spare);
        // A backslash may have stood between a letter and its mark.
        nfkc(text, spare);
    }
    if is_international_dot_atom(text) {
        return Ok(());
    }
    if !quoted || text.is_empty() {
        let several = !quoted && text.contains('@');
        return Err(if several { Reason::NotOneAddress } else { Reason::LocalPart });
    }
    spare.clear();
    spare.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            spare.push('\\');
        }
        spare.push(c);
    }
    spare.push('"');
    std::mem::swap(text, spare);
    if text.len() <= LONGEST_LOCAL_PART { Ok(()) } else { Err(Reason::LocalPart) }
}

/// Writes the content of a quoted string (RFC 5322, 3.2.4) to `content`.
fn unquote(text: &str, content: &mut String) -> Result<(), Reason> {
    content.clear();
    let mut chars = text.chars().skip(1);
    while let Some(c) = chars.next() {
        match c {
            '"' if chars.next().is_none() => return Ok(()),
            '"' => break,
            '\\' => content.push(chars.next().filter(|c| is_printed(*c)).ok_or(Reason::LocalPart)?),
            c if is_printed(c) => content.push(c),
            _ => break,
        }
    }
    Err(Reason::LocalPart)
}

fn is_printed(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace() || c == char::REPLACEMENT_CHARACTER)
}

/// Whether a text is a dot-atom whose letters may be of any script (RFC 6531, 3.3), and does not begin
/// like a quotation.
fn is_international_dot_atom(text: &str) -> bool {
    let atext = |c: char| match u8::try_from(c) {
        Ok(byte) if byte.is_ascii() => is_atext(byte),
        _ => is_printed(c),
    };
    text.len() <= LONGEST_LOCAL_PART
        && !text.starts_with(surroundings::is_quote)
        && text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(atext))
}

/// Applies a provider's own rules.
///
/// Unified ID 2.0, "Normalization and encoding", as of August 2026: at gmail.com, dots do not count, nor
/// what follows a plus sign. Google's Customer Match and enhanced conversions, as of November 2026: at
/// gmail.com and googlemail.com, dots do not count. Neither holds the two domains equal.
fn provider(text: &mut String, spare: &mut String, profile: Profile) -> Result<(), Reason> {
    let applies = |text: &str| match profile {
        Profile::Plain => false,
        Profile::Uid2 => text.ends_with("@gmail.com"),
        Profile::Google => text.ends_with("@gmail.com") || text.ends_with("@googlemail.com"),
    };
    if !applies(text) || text.starts_with('"') {
        return Ok(());
    }
    let at = text.rfind('@').unwrap_or(0);
    let local = match profile {
        Profile::Uid2 => text[..at].find('+').unwrap_or(at),
        Profile::Plain | Profile::Google => at,
    };
    text.drain(local..at);
    let mut left = local;
    text.retain(|c| {
        let dot = left > 0 && c == '.';
        left = left.saturating_sub(c.len_utf8());
        !dot
    });
    // A dot may have stood between a letter and its mark.
    nfkc(text, spare);
    if text.starts_with('@') { Err(Reason::LocalPart) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(profile: Profile, text: &str) -> Result<String, Reason> {
        let (mut text, mut spare) = (text.to_owned(), String::new());
        email(&mut text, &mut spare, profile).map(|()| text)
    }

    #[test]
    fn one_form_of_an_address() {
        for (text, expected) in [
            ("ada@example.org", "ada@example.org"),
            (" Ada.Lovelace@Example.ORG ", "ada.lovelace@example.org"),
            ("a+b@example.org", "a+b@example.org"),
            ("a_b-c@sub.example.co.uk", "a_b-c@sub.example.co.uk"),
            ("o'brien@example.org", "o'brien@example.org"),
            ("ada＠example.org", "ada@example.org"),
            ("ｂｏ@ｅxample．ｏｒｇ", "bo@example.org"),
            ("MÜLLER@BÜCHER.example", "müller@xn--bcher-kva.example"),
            ("ann@münchen.example", "ann@xn--mnchen-3ya.example"),
            ("ann@xn--mnchen-3ya.example", "ann@xn--mnchen-3ya.example"),
            ("ann@XN--MNCHEN-3YA.example", "ann@xn--mnchen-3ya.example"),
            ("ann@example。org", "ann@example.org"),
            ("ann@faß.de", "ann@xn--fa-hia.de"),
            ("H\u{331}@example.org", "\u{1e96}@example.org"),
            ("7@example.org", "7@example.org"),
            ("ada@3com.example", "ada@3com.example"),
            ("ada@ab--cd.example", "ada@ab--cd.example"),
            ("\"ada\"@example.org", "ada@example.org"),
            ("\"ada lovelace\"@example.org", "\"ada lovelace\"@example.org"),
            ("\"a\\d\\\"a\"@example.org", "\"ad\\\"a\"@example.org"),
            ("\"ada@home\"@example.org", "\"ada@home\"@example.org"),
            ("\"'ada\"@example.org", "\"'ada\"@example.org"),
            ("\"a\\\u{308} da\"@example.org", "\"ä da\"@example.org"),
            ("", ""),
            ("  ", ""),
        ] {
            assert_eq!(by(Profile::Plain, text).as_deref(), Ok(expected), "{text}");
        }
    }

    /// What a profile drops leaves a text of one form: it is the same when it is written again.
    #[test]
    fn marks_behind_dots_that_do_not_count() {
        for text in
            ["axt.\u{308}l@gmail.com", "\"a\\xt.\u{308}l\"@gmail.com", "axt\u{308}l@gmail.com"]
        {
            for profile in [Profile::Uid2, Profile::Google] {
                let once = by(profile, text);
                assert_eq!(once.as_deref(), Ok("ax\u{1e97}l@gmail.com"), "{text:?}");
                assert_eq!(by(profile, once.as_deref().unwrap()), once);
            }
        }
    }

    #[test]
    fn what_is_no_address_is_invalid() {
        for (text, expected) in [
            ("n/a", Reason::NotOneAddress),
            ("ada", Reason::NotOneAddress),
            ("@example.org", Reason::LocalPart),
            ("ada@", Reason::Domain),
            ("ada@localhost", Reason::Domain),
            ("ada@.org", Reason::Domain),
            ("ada@a..b", Reason::Domain),
            ("ada@-example.org", Reason::Domain),
            ("ada@example-.org", Reason::Domain),
            ("ada@exa_mple.org", Reason::Domain),
            ("ada@192.0.2.1", Reason::Domain),
            ("ada@[192.0.2.1]", Reason::Domain),
            ("ada@example.123", Reason::Domain),
            ("ada@example.org/bob", Reason::Domain),
            ("ada@xn--a.example", Reason::Domain),
            ("ada@exam\u{0}ple.org", Reason::Domain),
            ("ada@home@example.org", Reason::NotOneAddress),
            ("ada@example.org,bob@example.org", Reason::NotOneAddress),
            ("ada@example.org; bob@example.org", Reason::NotOneAddress),
            ("ada lovelace@example.org", Reason::LocalPart),
            (".ada@example.org", Reason::LocalPart),
            ("ada.@example.org", Reason::LocalPart),
            ("a..da@example.org", Reason::LocalPart),
            ("a(b)c@example.org", Reason::LocalPart),
            ("\"\"@example.org", Reason::LocalPart),
            ("\"a\"b@example.org", Reason::LocalPart),
            ("m\u{fffd}ller@example.org", Reason::LocalPart),
            ("email:ada@example.org", Reason::LocalPart),
        ] {
            assert_eq!(by(Profile::Plain, text), Err(expected), "{text}");
        }
        for (local, domain, valid) in
            [(64, 63, true), (65, 63, false), (64, 64, false), (0, 63, false)]
        {
            let text = format!("{}@{}.org", "a".repeat(local), "b".repeat(domain));
            assert_eq!(by(Profile::Plain, &text).is_ok(), valid, "{text}");
        }
        let labels = "abcdefg.".repeat(31);
        assert!(by(Profile::Plain, &format!("a@{labels}abcde")).is_ok());
        assert_eq!(by(Profile::Plain, &format!("a@{labels}abcdef")), Err(Reason::Domain));
    }

    #[test]
    fn what_stands_around_an_address_is_dropped() {
        for text in [
            "<bo@example.org>",
            "Bo <bo@example.org>",
            "\"Jones, Bo\" <bo@example.org>",
            "bo@example.org <bo@example.org>",
            "mailto:bo@example.org",
            "MAILTO:bo@example.org?subject=hello",
            "<mailto:bo@example.org>",
            "\"bo@example.org\"",
            "'bo@example.org'",
            "“bo@example.org”",
            "«bo@example.org»",
            "`bo@example.org`",
            "'bo@example.org",
            "bo@example.org,",
            "bo@example.org;",
            "bo@example.org.",
            "(bo@example.org)",
            "[bo@example.org]",
            "bo@example.org (Bo Jones)",
            "Bo Jones (bo@example.org)",
            "=\"bo@example.org\"",
            "<bo@example.org>;",
        ] {
            assert_eq!(by(Profile::Plain, text).as_deref(), Ok("bo@example.org"), "{text}");
        }
    }

    #[test]
    fn two_addresses_are_not_one() {
        for text in [
            "bo@example.org, ada@example.org",
            "bo@example.org;ada@example.org",
            "bo@example.org ada@example.org",
            "bo@example.org/ada@example.org",
            "<bo@example.org>, <ada@example.org>",
            "bo@example.org, Ada <ada@example.org>",
            "Bo <bo@example.org>, Ada <ada@example.org>",
            "bo@example.org (ada@example.org)",
            "mailto:bo@example.org,ada@example.org",
        ] {
            assert!(by(Profile::Plain, text).is_err(), "{text}");
        }
    }

    /// The examples of <https://unifiedid.com/docs/getting-started/gs-normalization-encoding>.
    #[test]
    fn the_published_examples_of_uid2() {
        for (text, expected) in [
            ("USER@example.com", "user@example.com"),
            ("MyEmail@example.com", "myemail@example.com"),
            ("My.Email@example.com", "my.email@example.com"),
            ("JANESAOIRSE@example.com", "janesaoirse@example.com"),
            ("Jane.Saoirse@example.com", "jane.saoirse@example.com"),
            ("JaneSaoirse+Work@example.com", "janesaoirse+work@example.com"),
            ("JANE.SAOIRSE@gmail.com", "janesaoirse@gmail.com"),
            ("JaneSaoirse+Work@gmail.com", "janesaoirse@gmail.com"),
            ("jane.doe@gmail.com", "janedoe@gmail.com"),
            ("janedoe+home@gmail.com", "janedoe@gmail.com"),
            // What it does not say: another domain stays another domain.
            ("jane.doe+x@googlemail.com", "jane.doe+x@googlemail.com"),
            ("jane.doe@notgmail.com", "jane.doe@notgmail.com"),
        ] {
            assert_eq!(by(Profile::Uid2, text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(by(Profile::Uid2, "+home@gmail.com"), Err(Reason::LocalPart));
    }

    /// The examples of the library that Google publishes for it (googleads/data-manager-php).
    #[test]
    fn the_published_examples_of_google() {
        for (text, expected) in [
            ("QuinnY@example.com", "quinny@example.com"),
            ("QuinnY@EXAMPLE.com", "quinny@example.com"),
            ("Jefferson.Loves.hiking@gmail.com", "jeffersonloveshiking@gmail.com"),
            ("Jefferson.LOVES.Hiking@googlemail.com", "jeffersonloveshiking@googlemail.com"),
            // What it does not say: what follows a plus sign counts.
            ("jefferson+hiking@gmail.com", "jefferson+hiking@gmail.com"),
        ] {
            assert_eq!(by(Profile::Google, text).as_deref(), Ok(expected), "{text}");
        }
    }
}
