//! Compatible forms and letter case, by Unicode's tables.

use icu_casemap::{CaseMapper, CaseMapperBorrowed};
use icu_locale_core::LanguageIdentifier;
use icu_normalizer::{ComposingNormalizer, ComposingNormalizerBorrowed};
use writeable::Writeable as _;
use zeroize::Zeroize as _;

use crate::surroundings::drop_invisible;

const CASES: CaseMapperBorrowed<'static> = CaseMapper::new();
const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizer::new_nfkc();
const NFC: ComposingNormalizerBorrowed<'static> = ComposingNormalizer::new_nfc();

/// Unicode normalisation form NFKC (UAX #15).
pub(crate) fn nfkc(text: &mut String, spare: &mut String) {
    normalise(&NFKC, text, spare);
    // A few compatible forms are characters that nobody sees.
    drop_invisible(text, spare);
}

/// Unicode normalisation form NFC (UAX #15).
pub(crate) fn nfc(text: &mut String, spare: &mut String) {
    normalise(&NFC, text, spare);
}

fn normalise(form: &ComposingNormalizerBorrowed<'static>, text: &mut String, spare: &mut String) {
    if text.is_ascii() || form.is_normalized(text) {
        return;
    }
    spare.clear();
    form.normalize_to(text, spare).expect("a String takes any text");
    std::mem::swap(text, spare);
}

/// Full lower case (The Unicode Standard, 3.13, `toLowercase`), independent of any language.
pub(crate) fn lowercase(text: &mut String, spare: &mut String) {
    if text.is_ascii() {
        text.make_ascii_lowercase();
        return;
    }
    spare.clear();
    let any_language = &LanguageIdentifier::UNKNOWN;
    CASES.lowercase(text, any_language).write_to(spare).expect("a String takes any text");
    std::mem::swap(text, spare);
}

/// Unicode's `toNFKC_Casefold` (The Unicode Standard, 3.13).
pub(crate) fn fold(text: &mut String, spare: &mut String) {
    if text.is_ascii() {
        text.make_ascii_lowercase();
        return;
    }
    nfkc(text, spare);
    let mut folded = String::with_capacity(text.len());
    // What is folded may compose anew, and what is composed anew may fold again.
    loop {
        folded.clear();
        CASES.fold(text).write_to(&mut folded).expect("a String takes any text");
        nfkc(&mut folded, spare);
        if *text == folded {
            break;
        }
        std::mem::swap(text, &mut folded);
    }
    folded.zeroize();
}
