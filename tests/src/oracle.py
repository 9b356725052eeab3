"""The intersection of e-mail addresses, computed from the tables alone, by sort and comm.

Arguments: a directory to work in, then for each party its input, its output, the delimiter and the
key's column. Compares each output with the rows that have to be there and prints what it found as
JSON.
"""

import csv
import json
import os
import re
import subprocess
import sys
import unicodedata

ALLOWED = r"[^@\s\x00-\x1f\x7f-\x9f"
ADDRESS = re.compile(rf"{ALLOWED}]+@{ALLOWED}.]+(?:\.{ALLOWED}.]+)+")
BLANK, INVALID = "", "@"


def rows(path, delimiter):
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from csv.reader(file, delimiter=delimiter)


def normalised(text):
    """The address, BLANK, or INVALID for what is none."""
    if text.isascii():
        text = text.strip().lower()
    else:
        text = unicodedata.normalize("NFKC", text).strip().lower()
        text = unicodedata.normalize("NFKC", text)
    return text if not text or ADDRESS.fullmatch(text) else INVALID


def run(*command, into):
    """Runs a command that compares bytes, its output into a file."""
    with open(into, "wb") as file:
        subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, stdout=file, check=True)


def lines(path):
    """The lines of a file, each with its end."""
    with open(path, encoding="utf-8", newline="\n") as file:
        return set(file)


def read(path, delimiter, column, of_rows, sorted_keys):
    """Writes the keys of the party's rows, and sorted and each once; counts."""
    table = rows(path, delimiter)
    index = next(table).index(column)
    counts = {"rows": 0, "blank": 0, "invalid": 0}
    unsorted = sorted_keys + ".unsorted"
    with (
        open(of_rows, "w", encoding="utf-8") as every,
        open(unsorted, "w", encoding="utf-8") as valid,
    ):
        for row in table:
            key = normalised(row[index])
            line = key + "\n"
            every.write(line)
            counts["rows"] += 1
            if key == BLANK:
                counts["blank"] += 1
            elif key == INVALID:
                counts["invalid"] += 1
            else:
                valid.write(line)
    run("sort", "-u", unsorted, into=sorted_keys)
    with open(sorted_keys, "rb") as file:
        counts["keys"] = sum(1 for _ in file)
    return counts


def compare(common, source, output, delimiter, of_rows):
    """Demands that the output is the header and the matching rows; their number."""
    table, written = rows(source, delimiter), rows(output, delimiter)
    if next(written, None) != next(table):
        sys.exit(f"{output}: another header")
    matched = 0
    with open(of_rows, encoding="utf-8", newline="\n") as keys:
        for number, (row, key) in enumerate(zip(table, keys, strict=True), 1):
            if key in common:
                matched += 1
                if next(written, None) != row:
                    sys.exit(f"{output}: its row {matched} is not row {number} of the input")
    if next(written, None) is not None:
        sys.exit(f"{output}: more than the {matched} rows that match")
    return matched


def main():
    directory, *arguments = sys.argv[1:]
    parties = [arguments[at : at + 4] for at in range(0, len(arguments), 4)]
    common, keys, both = (os.path.join(directory, name) for name in ("common", "keys", "both"))
    of_rows = [os.path.join(directory, f"keys-of-{index}") for index in range(len(parties))]
    found = []
    for (source, _, delimiter, column), every in zip(parties, of_rows):
        found.append(read(source, delimiter, column, every, keys))
        if len(found) == 1:
            os.replace(keys, common)
        else:
            run("comm", "-12", common, keys, into=both)
            os.replace(both, common)
    in_all = lines(common)
    for counts, (source, output, delimiter, _), every in zip(found, parties, of_rows):
        counts["matched"] = compare(in_all, source, output, delimiter, every)
    print(json.dumps({"common": len(in_all), "parties": found}))


main()
