//! The decimal digits of all scripts.

use std::sync::LazyLock;

use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;

/// The zero of each script, ascending. Unicode keeps the digits of a script in a row, from 0 to 9.
static ZEROS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let categories = CodePointMapData::<GeneralCategory>::new();
    let ranges = categories.iter_ranges_for_value(GeneralCategory::DecimalNumber);
    ranges.flat_map(|range| range.step_by(10)).collect()
});

/// The value of a decimal digit (Unicode's General_Category Nd): not of a superscript, a fraction, or
/// a number in a circle.
#[inline]
pub(crate) fn value(c: char) -> Option<u8> {
    match c {
        '0'..='9' => Some(c as u8 - b'0'),
        _ if c.is_ascii() => None,
        _ => {
            let after = ZEROS.partition_point(|zero| *zero <= u32::from(c));
            let value = u32::from(c) - ZEROS[after.checked_sub(1)?];
            u8::try_from(value).ok().filter(|value| *value < 10)
        }
    }
}

/// The ASCII form of a decimal digit; any other character as it is.
#[inline]
pub(crate) fn in_ascii(c: char) -> char {
    value(c).map_or(c, |value| char::from(b'0' + value))
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization as _;

    use super::*;

    #[test]
    fn digits_of_all_scripts() {
        for digits in
            ["0123456789", "٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹", "०१२३४५६७८९", "０１２３４５６７８９"]
        {
            let values: Vec<_> = digits.chars().filter_map(value).collect();
            assert_eq!(values, (0..10).collect::<Vec<_>>(), "{digits}");
        }
        for c in "²½①Ⅷ一๛a-\u{661}\u{300}".chars().filter(|c| *c != '\u{661}') {
            assert_eq!(value(c), None, "{c}");
        }
    }

    /// Every digit with a compatible form, by another library's tables.
    #[test]
    fn digits_have_the_value_of_their_compatible_form() {
        let categories = CodePointMapData::<GeneralCategory>::new();
        let mut digits = 0;
        for c in '\0'..=char::MAX {
            let is_digit = categories.get(c) == GeneralCategory::DecimalNumber;
            assert_eq!(value(c).is_some(), is_digit, "{c}");
            digits += u32::from(is_digit);
            let form: String = std::iter::once(c).nfkc().collect();
            if let (true, Ok(expected)) = (is_digit, form.parse::<u8>()) {
                assert_eq!(value(c), Some(expected), "{c}");
            }
        }
        assert!(digits >= 760, "{digits}");
    }
}
