#!/usr/bin/env python3
"""Writes the numbering plans that convelo-keys reads numbers by, and numbers to compare it with.

    python3 -m venv venv && venv/bin/pip install phonenumbers==9.0.43
    venv/bin/python vectors/telephone/make.py

The plans are libphonenumber's metadata (Apache-2.0), as the Python package ``phonenumbers`` (Apache-2.0) has
it; the numbers are the package's example numbers of every region and type, written in many ways, changed at
random, and read by the package itself. A new version also needs TELEPHONE_VERSION in
``crates/psi/src/keys/recipe.rs``: a test compares them.
"""

import pathlib
import random
import re

import phonenumbers
from phonenumbers import PhoneMetadata, PhoneNumberFormat, PhoneNumberType, ValidationResult

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLANS = ROOT / "crates/keys/src/phone/plans.tsv"
NUMBERS = ROOT / "vectors/telephone/numbers.tsv"

# What is dialled before an international number in the United States, Germany, Japan, Australia, Russia.
PREFIXES = {1: "011", 49: "00", 81: "010", 61: "0011", 7: "810"}

# How many random rows of digits are read in each country.
CHANGES = 4


def metadata_of(code: int) -> PhoneMetadata:
    return PhoneMetadata.metadata_for_region_or_calling_code(code, main_region(code))


def main_region(code: int) -> str:
    return phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code][0]


def plans() -> str:
    lines = [
        f"# libphonenumber {phonenumbers.__version__}: metadata of the main region of each calling code (Apache-2.0).",
        "# Written by vectors/telephone/make.py. Calling code, possible lengths, lengths within a part of the country,",
        "# what is dialled before an international number, before a national one, what stands in place of that, numbers.",
    ]
    for code in sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE):
        metadata = metadata_of(code)
        general = metadata.general_desc
        fields = [
            code,
            ",".join(map(str, general.possible_length)),
            ",".join(map(str, general.possible_length_local_only)),
            metadata.international_prefix or "",
            metadata.national_prefix_for_parsing or "",
            re.sub(r"\\(\d)", r"${\1}", metadata.national_prefix_transform_rule or ""),
            general.national_number_pattern,
        ]
        lines.append("\t".join(map(str, fields)))
    return "\n".join(lines) + "\n"


def read(home: int | None, text: str) -> str:
    """The number as in E.164, or nothing if it is impossible."""
    try:
        number = phonenumbers.parse(text, main_region(home) if home else None)
    except phonenumbers.NumberParseException:
        return ""
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        return ""
    national = phonenumbers.national_significant_number(number)
    if not re.fullmatch(metadata_of(number.country_code).general_desc.national_number_pattern, national):
        return ""
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def examples() -> list[phonenumbers.PhoneNumber]:
    found = {}
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in PhoneNumberType.values():
            number = phonenumbers.example_number_for_type(region, kind)
            if number is not None:
                found[phonenumbers.format_number(number, PhoneNumberFormat.E164)] = number
    for code in sorted(phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS):
        number = phonenumbers.example_number_for_non_geo_entity(code)
        if number is not None:
            found[phonenumbers.format_number(number, PhoneNumberFormat.E164)] = number
    return [found[text] for text in sorted(found)]


def written(number: phonenumbers.PhoneNumber, chance: random.Random) -> list[tuple[int | None, str]]:
    """The ways in which a number is written, with the country in which it is."""
    code = number.country_code
    national = phonenumbers.national_significant_number(number)
    in_words = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
    forms = [
        (None, f"+{code}{national}"),
        (None, phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)),
        (code, in_words),
        (code, re.sub(r"\D", "", in_words)),
        (code, national),
        (code, f"{code}{national}"),
    ]
    prefix = metadata_of(code).national_prefix
    if prefix:
        forms.append((None, f"+{code} ({prefix}) {national}"))
    home = chance.choice(sorted(PREFIXES))
    forms.append((home, f"{PREFIXES[home]} {code} {national}"))
    return forms


def changed(code: int, chance: random.Random) -> list[tuple[int | None, str]]:
    """Digits that may be a number of a country."""
    forms: list[tuple[int | None, str]] = []
    for _ in range(CHANGES):
        digits = "".join(chance.choice("0123456789") for _ in range(chance.randint(4, 14)))
        forms += [(code, digits), (None, f"+{code}{digits}")]
    return forms


def numbers() -> str:
    chance = random.Random(9043)
    forms: list[tuple[int | None, str]] = []
    for number in examples():
        some = written(number, chance)
        forms += some
        home, text = chance.choice(some)
        forms += [(home, text[:-1]), (home, text + "7")]
    for code in sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE):
        forms += changed(code, chance)
    lines = [f"# Read by phonenumbers {phonenumbers.__version__}; see make.py. Country, text, number or nothing."]
    for home, text in dict.fromkeys(forms):
        if home in phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS:
            continue
        expected = read(home, text)
        # 00 is read as an international prefix everywhere, which libphonenumber does not.
        if not expected and re.sub(r"\D", "", text).startswith("00"):
            continue
        lines.append(f"{home or ''}\t{text}\t{expected}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PLANS.write_text(plans(), encoding="utf-8")
    NUMBERS.write_text(numbers(), encoding="utf-8")
