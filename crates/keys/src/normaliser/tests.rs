use convelo_psi::{STEPS, encode_parts};
use proptest::prelude::*;

use super::*;

fn part(steps: &[&str]) -> KeyPart {
    KeyPart::new("part", steps.iter().map(|step| step.parse().expect("a step")).collect())
}

fn ignoring(steps: &[&str], values: &[&str]) -> KeyPart {
    let ignore = values.iter().map(|value| (*value).to_owned()).collect();
    KeyPart { ignore, ..part(steps) }
}

/// The normalised text of a key of one part.
fn of(part: KeyPart, text: &str) -> Result<String, Dropped> {
    match Normaliser::new(&[part]).encode([text]) {
        Encoded::Key(key) => Ok(String::from_utf8(key.to_vec()[12..].to_vec()).expect("UTF-8")),
        Encoded::Dropped { part: 0, why } => Err(why),
        Encoded::Dropped { part, .. } => panic!("there is no part {part}"),
    }
}

fn normalised(steps: &[&str], text: &str) -> Result<String, Dropped> {
    of(part(steps), text)
}

/// What users of other tools have reported as wrong: the texts of two partners, and whether they mean
/// the same.
#[test]
fn texts_that_mean_the_same_meet_and_others_do_not() {
    #[rustfmt::skip]
    let cases: [(&[&str], &str, &str, bool); 79] = [
        // Separators and meaning.
        (&["digits"], "1001.0", "10010", false),
        (&["digits"], "1980-1-11", "1980-11-1", false),
        (&["digits"], "٤٥٦", "456", true),
        // Numbering plans.
        (&["phone:39"], "0321 123456", "+39 321 123456", false),
        (&["phone:39"], "06 6982 0001", "+390669820001", true),
        (&["phone:1"], "1-415-555-2682", "+14155552682", true),
        (&["phone:1"], "011 49 30 1234561", "+49301234561", true),
        (&["phone:81"], "010 49 30 1234561", "+49301234561", true),
        (&["phone:7"], "8 (495) 123-45-61", "+74951234561", true),
        (&["phone:36"], "06 1 234 5671", "+3612345671", true),
        (&["phone:375"], "80 17 234 5671", "+375172345671", true),
        (&["phone:225"], "05 12 34 56 71", "+2250512345671", true),
        (&["phone:61"], "0011 49 30 1234561", "+49301234561", true),
        (&["phone:54"], "011 15-2345-6789", "+54 9 11 2345-6789", true),
        (&["phone:55"], "0 15 11 91234-5678", "+55 11 91234-5678", true),
        (&["phone:34"], "912 345 678", "+34912345678", true),
        (&["phone:45"], "32 12 34 56", "+4532123456", true),
        (&["phone:370"], "8 612 34567", "+37061234567", true),
        // What nobody sees.
        (&["email"], "\u{200b}ann0@example.org", "ann0@example.org", true),
        (&["email"], "\u{feff}ann1@example.org", "ann1@example.org", true),
        (&["email"], "\u{202a}ann3@example.org\u{202c}", "ann3@example.org", true),
        (&["email"], "\u{2068}ann4@example.org\u{2069}", "ann4@example.org", true),
        (&["email"], "a\u{ad}nn6@example.org", "ann6@example.org", true),
        (&["email"], "a\u{200d}nn7@example.org", "ann7@example.org", true),
        (&["phone"], "\u{200b}+493012345600", "+493012345600", true),
        (&["phone"], "+\u{ad}493012345606", "+493012345606", true),
        (&["phone"], "+\u{200d}493012345607", "+493012345607", true),
        (&["phone"], "\u{2068}+493012345604\u{2069}", "+493012345604", true),
        (&["trim"], "\u{feff}id1", "id1", true),
        (&["trim"], "\u{202a}id3\u{202c}", "id3", true),
        (&["trim"], "i\u{ad}d6", "id6", true),
        (&["nfkc"], "i\u{200d}d7", "id7", true),
        (&["lowercase"], "I\u{200b}D8", "id8", true),
        (&["digits"], "1\u{200b}2", "12", true),
        (&[], "\u{feff}id1", "id1", false),
        // Mail addresses and what stands around them.
        (&["email"], "<bo1@example.org>", "bo1@example.org", true),
        (&["email"], "mailto:bo3@example.org", "bo3@example.org", true),
        (&["email"], "bo4@example.org,", "bo4@example.org", true),
        (&["email"], "\"bo7@example.org\"", "bo7@example.org", true),
        (&["email"], "'bo8@example.org'", "bo8@example.org", true),
        (&["email"], "bo9@example.org/bo12", "bo9@example.org", false),
        (&["email"], "ann20@-example.org", "ann20@-example.org", false),
        (&["email"], "ann@münchen.example", "ann@xn--mnchen-3ya.example", true),
        (&["email"], "ann@example。org", "ann@example.org", true),
        (&["email"], "a.b.c@gmail.com", "abc@gmail.com", false),
        (&["email:uid2"], "a.b.c@gmail.com", "abc@gmail.com", true),
        (&["email:google"], "a.b.c@gmail.com", "abc@gmail.com", true),
        (&["email:google"], "abc@googlemail.com", "abc@gmail.com", false),
        // What spreadsheets make of texts.
        (&["trim"], "=\"00123\"", "00123", true),
        (&["trim"], "'00126", "00126", true),
        (&["phone"], "'+493012345601", "+493012345601", true),
        (&["integer"], "00123", "123", true),
        (&["integer"], "124.0", "124", true),
        (&["integer"], "+125", "125", true),
        (&["integer"], "1,25", "125", false),
        (&["integer"], "1.2E+3", "1200", false),
        (&["date:dmy"], "11.1.1980", "1980-01-11", true),
        (&["date:ymd"], "1980-1-11", "1980-11-1", false),
        // Names.
        (&["fold"], "STRASSE", "Straße", true),
        (&["fold", "ascii"], "İstanbul", "istanbul", true),
        (&["fold", "spaces"], "Anna\tLou", "anna lou", true),
        (&["fold", "spaces"], "Anna\nLiv", "anna liv", true),
        (&["plain", "fold"], "Smith\u{2010}Jones", "smith-jones", true),
        (&["fold", "plain"], "Smith\u{2011}Jones", "smith-jones", true),
        (&["fold", "ascii"], "José", "jose", true),
        (&["fold", "ascii"], "Müller", "mueller", true),
        (&["fold", "ascii:base"], "Müller", "muller", true),
        // How telephone numbers are written.
        (&["phone"], "+49 (0)30 1234568", "+49 30 1234568", true),
        (&["phone"], "+44 (0) 20 7946 0018", "+442079460018", true),
        (&["phone"], "tel:+493012345670", "+493012345670", true),
        (&["phone"], "+49 30 12345671 ext. 12", "+493012345671", false),
        (&["phone:drop-extension"], "+49 30 12345671 ext. 12", "+493012345671", true),
        (&["phone:keep-extension"], "+49 30 12345671 ext. 12", "+493012345671;ext=12", true),
        (&["phone:keep-extension"], "+49 30 12345671 ext. 12", "+493012345671", false),
        (&["phone"], "+\u{664}\u{669}\u{663}\u{660}\u{661}\u{662}\u{663}\u{664}\u{665}\u{666}\u{668}\u{665}", "+493012345685", true),
        (&["phone"], "+\u{96f}\u{967} \u{967}\u{968}\u{969}\u{96a}\u{96b}\u{96c}\u{96d}\u{96e}\u{96f}\u{966}", "+911234567890", true),
        (&["phone"], "+493012345690.0", "+493012345690", true),
        (&["phone:49"], "301234569.0", "+49 30 12345690", false),
        (&["phone:49"], "301234569.0", "+49 30 1234569", true),
    ];
    for (steps, a, b, meet) in cases {
        let (a_key, b_key) = (normalised(steps, a), normalised(steps, b));
        let equal = a_key.is_ok() && a_key == b_key;
        assert_eq!(equal, meet, "{steps:?}: {a:?} is {a_key:?}, {b:?} is {b_key:?}");
        if meet {
            assert!(b_key.is_ok());
        }
    }
}

#[test]
fn what_nobody_sees_does_not_count_in_any_step() {
    let invisible = "\u{ad}\u{34f}\u{61c}\u{180e}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\
                     \u{202d}\u{202e}\u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{3164}\u{fe0f}\u{feff}\u{ffa0}\u{e0041}";
    for (step, value) in [
        ("trim", "id1"),
        ("spaces", "anna liv"),
        ("nfkc", "id1"),
        ("lowercase", "id1"),
        ("fold", "anna"),
        ("plain", "o'brien"),
        ("ascii", "anna"),
        ("digits", "12345"),
        ("integer", "123"),
        ("date:dmy", "1980-01-11"),
        ("email", "ann1@example.org"),
        ("email:uid2", "ann1@gmail.com"),
        ("phone", "+493012345601"),
        ("phone:49", "+493012345601"),
    ] {
        for c in invisible.chars() {
            for at in [0, 1, 3, value.len()] {
                let mut text = value.to_owned();
                text.insert(at, c);
                assert_eq!(normalised(&[step], &text).as_deref(), Ok(value), "{step} {text:?}");
            }
        }
    }
}

#[test]
fn every_step_refuses_with_its_reason() {
    for (step, text, expected) in [
        ("digits", "12a", Reason::Letters),
        ("integer", "1.2E+3", Reason::Exponent),
        ("date:dmy", "30.2.1980", Reason::NoSuchDay),
        ("email", "n/a", Reason::NotOneAddress),
        ("phone", "030 123456", Reason::NoCallingCode),
    ] {
        assert_eq!(normalised(&[step], text), Err(Dropped::Invalid(expected)), "{step}");
    }
}

#[test]
fn placeholders_are_blank_where_the_job_says_so() {
    let values =
        ["NULL", "nan", "None", "-", "#N/A", "+10000000000", "none@none.com", "Null Value"];
    for (steps, text) in [
        (&["trim"][..], "NULL"),
        (&["trim"], "null"),
        (&["trim"], " NaN "),
        (&["trim"], "None"),
        (&["trim"], "-"),
        (&["trim"], "#N/A"),
        (&[], "null"),
        (&["fold"], "ＮＵＬＬ"),
        (&["spaces"], "null  VALUE"),
        (&["phone"], "+10000000000"),
        (&["phone:49"], "NULL"),
        (&["email"], "<None@None.com>"),
        (&["email"], "n\u{200b}ull"),
        (&["digits"], "nan"),
        (&["date:dmy"], "None"),
    ] {
        assert_eq!(of(ignoring(steps, &values), text), Err(Dropped::Ignored), "{steps:?} {text}");
    }
    for (steps, text) in [(&["trim"][..], "NULLA"), (&["trim"], "7"), (&["trim"], "nul")] {
        assert_eq!(of(ignoring(steps, &values), text).as_deref(), Ok(text));
    }
    assert_eq!(of(ignoring(&["trim"], &values), "  "), Err(Dropped::Blank));
    let invalid = of(ignoring(&["email"], &values), "n/a");
    assert_eq!(invalid, Err(Dropped::Invalid(Reason::NotOneAddress)));
}

#[test]
fn the_first_part_at_fault_decides() {
    let parts = [part(&["trim"]), part(&["email"])];
    let mut normaliser = Normaliser::new(&parts);
    let dropped = |part, why| Encoded::Dropped { part, why };
    let invalid = Dropped::Invalid(Reason::NotOneAddress);
    assert!(
        normaliser.encode([" ada", "Ada@example.org"])
            == Encoded::Key(encode_parts(&["ada", "ada@example.org"])[..].into())
    );
    assert!(normaliser.encode([" ", "ada@example.org"]) == dropped(0, Dropped::Blank));
    assert!(normaliser.encode(["ada", ""]) == dropped(1, Dropped::Blank));
    assert!(normaliser.encode(["ada"]) == dropped(1, Dropped::Blank));
    assert!(normaliser.encode(["ada", "ada"]) == dropped(1, invalid));
    assert!(normaliser.encode(["", "ada"]) == dropped(0, Dropped::Blank));
}

#[test]
fn a_key_longer_than_the_limit_is_invalid() {
    let longest = "x".repeat(convelo_psi::limits::MAXIMUM_ENCODED_KEY_BYTES - 12);
    assert!(normalised(&[], &longest).is_ok());
    let longer = longest + "x";
    assert_eq!(normalised(&[], &longer), Err(Dropped::Invalid(Reason::TooLong)));
    assert_eq!(normalised(&["digits"], &longer), Err(Dropped::Invalid(Reason::Letters)));
}

#[test]
fn compatible_forms_and_letter_case() {
    for (step, text, expected) in [
        ("nfkc", "ﬁ", "fi"),
        ("nfkc", "e\u{301}", "é"),
        ("nfkc", "Ａ１", "A1"),
        ("lowercase", "AbC", "abc"),
        ("lowercase", "ÄΣ", "äς"),
        ("lowercase", "İ", "i\u{307}"),
        ("lowercase", "ß", "ß"),
        ("fold", "ß", "ss"),
        ("fold", "Σς", "σσ"),
        ("fold", "ＡΒΓ", "aβγ"),
        ("fold", "\u{345}\u{3b1}\u{301}", "ι\u{3ac}"),
    ] {
        assert_eq!(normalised(&[step], text).as_deref(), Ok(expected), "{step} of {text}");
    }
}

#[test]
fn every_assigned_character_is_normalised_idempotently() {
    // Ideographs fill the planes 2 and 3, and only the compatible ones change.
    let assigned =
        ('\0'..='\u{1ffff}').chain('\u{2f800}'..='\u{2fa1f}').chain('\u{e0000}'..='\u{e0fff}');
    // Steps that differ in what comes after a character is read need not all be tried.
    let steps = STEPS.iter().filter(|step| !step.contains(':') || step.ends_with("keep-extension"));
    for step in steps.copied().chain(["date:dmy", "integer:apostrophe", "ascii:base"]) {
        let mut once = Normaliser::new(&[part(&[step])]);
        let mut twice = Normaliser::new(&[part(&[step, step])]);
        for c in assigned.clone() {
            for text in [format!("{c}\u{331}Σ"), format!("h{c}@x{c}.org")] {
                assert!(
                    once.encode([text.as_str()]) == twice.encode([text.as_str()]),
                    "{step} of {text:?}"
                );
            }
        }
    }
}

/// Characters that mean something to a step, between any others.
fn field() -> impl Strategy<Value = String> {
    let telling =
        "[0-9a-zE@.,;:+/<>()\\[\\]\"'= \\-#xtel\u{feff}\u{ad}\u{301}éßÄİΣ０٣\u{2019}。]{0,24}";
    prop_oneof![any::<String>(), telling.prop_map(|text: String| text)]
}

proptest! {
    #[test]
    fn steps_are_idempotent(text in field(), step in 0..STEPS.len()) {
        let step = STEPS[step];
        if let Ok(once) = normalised(&[step], &text) {
            prop_assert_eq!(normalised(&[step], &once), Ok(once.clone()), "{} of {:?}", step, text);
        }
    }

    #[test]
    fn what_nobody_sees_changes_nothing(
        text in field(), step in 0..STEPS.len(), c in "[\u{ad}\u{200b}-\u{200f}\u{202a}-\u{202e}\u{2066}-\u{2069}\u{feff}]",
        at in any::<prop::sample::Index>(),
    ) {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let mut seen = text.clone();
        seen.insert_str(places[at.index(places.len())], &c);
        let step = &[STEPS[step]];
        prop_assert_eq!(normalised(step, &seen), normalised(step, &text), "{:?}", text);
    }

    #[test]
    fn lowercase_is_the_standard_librarys(text in any::<String>()) {
        let shown: String = text.chars().filter(|c| !crate::is_invisible(*c)).collect();
        let expected = Some(shown.to_lowercase()).filter(|text| !text.is_empty());
        prop_assert_eq!(normalised(&["lowercase"], &text).ok(), expected);
    }

    #[test]
    fn nfkc_is_another_librarys(text in any::<String>()) {
        use unicode_normalization::UnicodeNormalization as _;
        let shown: String = text.chars().filter(|c| !crate::is_invisible(*c)).nfkc().collect();
        let expected = Some(shown).filter(|text| !text.is_empty());
        prop_assert_eq!(normalised(&["nfkc"], &text).ok(), expected);
    }

    #[test]
    fn simple_steps_on_ascii_are_what_they_are_on_any_text(
        text in "[ -~\t\u{b}\u{c}\r\n]{0,20}",
        steps in proptest::sample::subsequence(vec!["nfkc", "lowercase", "trim", "fold", "ascii"], 0..5),
    ) {
        // A step that changes no ASCII text forces the other path.
        let general: Vec<&str> = steps.iter().copied().chain(["plain"]).collect();
        let text = text.replace('`', "'");
        prop_assert_eq!(normalised(&steps, &text), normalised(&general, &text));
    }

    #[test]
    fn digits_written_with_separators_meet(
        groups in proptest::collection::vec("[0-9]{2,5}", 3..6),
        separator in "[ \u{a0}\\-\u{2013}]",
    ) {
        let plain = groups.concat();
        prop_assume!(plain.len() >= 5);
        let written = groups.join(&separator);
        prop_assert_eq!(normalised(&["digits"], &written), Ok(plain), "{}", written);
    }

    #[test]
    fn whole_numbers_meet_and_are_told_apart(a in any::<i64>(), b in any::<i64>(), zeros in 0usize..4) {
        let forms = |n: i64| {
            let (sign, digits) = (if n < 0 { "-" } else { "" }, n.unsigned_abs().to_string());
            [format!("{n}"), format!("{sign}{}{digits}.00", "0".repeat(zeros))]
        };
        for form in forms(a) {
            let found = normalised(&["integer"], &form);
            prop_assert_eq!(found.as_deref(), Ok(&*a.to_string()));
            prop_assert_eq!(found == normalised(&["integer"], &b.to_string()), a == b);
        }
    }

    #[test]
    fn dates_meet_and_are_told_apart(
        year in 1000u32..10000, month in 1u32..13, day in 1u32..29, other in 1u32..29,
    ) {
        let iso = format!("{year}-{month:02}-{day:02}");
        for (step, form) in [
            ("date:dmy", format!("{day}.{month}.{year}")),
            ("date:dmy", format!("{day:02}/{month:02}/{year}")),
            ("date:mdy", format!("{month}/{day}/{year} 0:00")),
            ("date:ymd", format!("{year}{month:02}{day:02}")),
            ("date:ymd", iso.clone()),
        ] {
            prop_assert_eq!(normalised(&[step], &form), Ok(iso.clone()), "{}", form);
        }
        let found = normalised(&["date:dmy"], &format!("{other}.{month}.{year}"));
        prop_assert_eq!(found == Ok(iso), other == day);
    }

    #[test]
    fn rows_do_not_influence_each_other(rows in proptest::collection::vec((field(), field()), 1..20)) {
        let parts = [ignoring(&["nfkc", "trim", "fold"], &["n/a"]), part(&["email"])];
        let mut reused = Normaliser::new(&parts);
        for (a, b) in &rows {
            let mut fresh = Normaliser::new(&parts);
            let fields = [a.as_str(), b.as_str()];
            prop_assert!(reused.encode(fields) == fresh.encode(fields));
        }
    }
}
