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

SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")


def rows(path, delimiter):
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from csv.reader(file, delimiter=delimiter)


def normalised(text):
    """The address, "" for a blank, None for what is none."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.strip().lower()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    if not text:
        return ""
    local, _, domain = text.partition("@")
    if not local or "@" in domain or "." not in domain or not all(domain.split(".")):
        return None
    return None if SPACE_OR_CONTROL.search(text) else text


def run(*command, into):
    """Runs a command that compares bytes, its output into a file."""
    with open(into, "wb") as file:
        subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, stdout=file, check=True)


def lines(path):
    with open(path, encoding="utf-8") as file:
        return {line.rstrip("\n") for line in file}


def read(path, delimiter, column, sorted_keys):
    """Writes the party's keys, sorted and each once, and counts its rows."""
    table = rows(path, delimiter)
    index = next(table).index(column)
    counts = {"rows": 0, "blank": 0, "invalid": 0}
    keys = sorted_keys + ".unsorted"
    with open(keys, "w", encoding="utf-8") as file:
        for row in table:
            counts["rows"] += 1
            key = normalised(row[index])
            if key:
                file.write(key + "\n")
            else:
                counts["blank" if key == "" else "invalid"] += 1
    run("sort", "-u", keys, into=sorted_keys)
    with open(sorted_keys, "rb") as file:
        counts["keys"] = sum(1 for _ in file)
    return counts


def compare(common, source, output, delimiter, column):
    """Demands that the output is the header and the matching rows; their number."""
    table, written = rows(source, delimiter), rows(output, delimiter)
    header = next(table)
    index = header.index(column)
    if next(written, None) != header:
        sys.exit(f"{output}: another header")
    matched = 0
    for number, row in enumerate(table, 1):
        if normalised(row[index]) in common:
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
    found = []
    for source, _, delimiter, column in parties:
        found.append(read(source, delimiter, column, keys))
        if len(found) == 1:
            os.replace(keys, common)
        else:
            run("comm", "-12", common, keys, into=both)
            os.replace(both, common)
    in_all = lines(common)
    for counts, party in zip(found, parties):
        counts["matched"] = compare(in_all, *party)
    print(json.dumps({"common": len(in_all), "parties": found}))


main()
