"""Has ProVerif answer the queries of the models, and compares its answers with the expected ones.

    python3 docs/model/check.py PROVERIF             the models as they are
    python3 docs/model/check.py PROVERIF variants    with one thing changed, one after the other
    python3 docs/model/check.py PROVERIF fields      with one bound field left out, one after the other

Names of models at the end, as in `check.py PROVERIF variants opening two-way`, leave the others out. So
does a variant, written as it is printed: `check.py PROVERIF variants "job-key: X25519 broken from the start"`.

The exit status is 1 if an answer is not the expected one. For a field that is left out nothing is
expected: what its model says otherwise than with it is printed.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
LIBRARIES = ["cryptography", "bindings", "parties", "opening", "job-key"]
MODELS = [
    "opening",
    "repeated",
    "two-way",
    "resumption",
    "job-key",
    "job-key-leak",
    "job-key-identity",
    "relayed",
    "statement",
]
TIMEOUT_SECONDS = 1800

ANSWERS = {"is true": "true", "is false": "false", "cannot be proved": "not proved"}


class Change(NamedTuple):
    """A text that stands once in a file, and what to put in its place."""

    file: str
    old: str
    new: str


class Variant(NamedTuple):
    """Changes of a model, and the answers to its queries that are then expected."""

    model: str
    what: str
    changes: list[Change]
    expected: list[str]


ANY_PLATFORM = Change("opening.pv", "only(our_platform)", "any_platform")
AGREE = "Agree(name, identity, a_id, b_id, c_id, unverified, aside)"
QUANTUM = Change("job-key.pv", "(phase 1; !Quantum)", "!Quantum")
MLKEM = Change(
    "job-key.pv",
    AGREE,
    f"({AGREE} | in(aside, (k: bitstring, m: bitstring, x: bitstring)); out(network, m))",
)
VERDICT = """  if verified(policy, fresh, report_data(role_service, exporter, party_nonce, service_nonce,
                                         party_key, service_key, job)) then
  event Attested"""
EVIDENCE = """    if verified(only(our_platform), quoted, report_data(role_party, exporter, party_nonce,
                service_nonce, party_key, public(tls_key), its_job)) then
"""
SIGNATURES = """  if signed(other_id, confirmed_message(job, transcript, other, other_tag), other_signature) then
  if signed(after_id, confirmed_message(job, transcript, after, after_tag), after_signature) then
"""

VARIANTS = [
    Variant(
        "opening",
        "any platform accepted, a foreign quoting key leaked",
        [ANY_PLATFORM],
        ["false", "false", "true", "false"],
    ),
    Variant(
        "opening",
        "any platform accepted, no quoting key leaked",
        [ANY_PLATFORM, Change("opening.pv", "  out(network, foreign_quoting_key);\n", "")],
        ["true", "true", "true", "false"],
    ),
    Variant(
        "opening",
        "no fresh quote (--insecure-ratls-only)",
        [Change("opening.pvl", VERDICT, "  event Attested")],
        ["false", "false", "true", "false"],
    ),
    Variant(
        "two-way",
        "the party's program not verified (verify = \"service\")",
        [Change("two-way.pv", EVIDENCE, "")],
        ["false", "false", "true", "false"],
    ),
    Variant(
        "resumption",
        "resumed whatever the service's key is",
        [Change("resumption.pv", "=service_key,", "other_service_key: bitstring,")],
        ["true", "false", "false", "false"],
    ),
    Variant("job-key", "X25519 broken from the start", [QUANTUM], ["true", "true", "true", "false"]),
    Variant(
        "job-key",
        "ML-KEM broken from the start",
        [MLKEM, Change("job-key.pv", "\n  | (phase 1; !Quantum)", "")],
        ["true", "true", "true", "false"],
    ),
    Variant(
        "job-key",
        "ML-KEM broken from the start, X25519 afterwards",
        [MLKEM],
        ["false", "true", "true", "false"],
    ),
    Variant(
        "job-key",
        "both broken from the start",
        [QUANTUM, MLKEM],
        ["false", "true", "true", "false"],
    ),
    Variant(
        "job-key",
        "no identities pinned: the service says who is who",
        [
            Change(
                "job-key.pv",
                AGREE,
                "in(network, (a: bitstring, b: bitstring, c: bitstring));\n"
                "     if own(name, a, b, c) = public(identity) then\n"
                "     Agree(name, identity, a, b, c, unverified, aside)",
            )
        ],
        ["false", "false", "true", "false"],
    ),
    Variant(
        "job-key-leak",
        "confirmations not signed",
        [Change("job-key.pvl", SIGNATURES, "")],
        ["false", "false", "false"],
    ),
    Variant(
        "relayed",
        "offers without evidence: the service says whose program is verified",
        [Change("relayed.pv", "only(our_platform)", "unverified")],
        ["false", "false", "false", "false"],
    ),
    Variant(
        "relayed",
        "any platform accepted, a foreign quoting key leaked",
        [Change("relayed.pv", "only(our_platform)", "any_platform")],
        ["false", "false", "false", "false"],
    ),
    Variant(
        "relayed",
        "any platform accepted, no quoting key leaked",
        [
            Change("relayed.pv", "only(our_platform)", "any_platform"),
            Change("relayed.pv", "  out(network, foreign_quoting_key);\n", ""),
        ],
        ["true", "true", "true", "false"],
    ),
    Variant(
        "statement",
        "no TLS key leaked",
        [Change("statement.pv", "  out(network, tls_key);\n", "")],
        ["true", "true", "true", "false", "true", "false"],
    ),
]

# The definitions of bindings.pvl, and the models that are asked when one of their fields is left out. A
# statement is worth something to a reader only as long as no TLS key has leaked.
NO_LEAK = "statement: no TLS key leaked"
FIELDS = {
    "certificate_claims": ["opening", NO_LEAK],
    "session_data": ["opening", "repeated", "two-way"],
    "one_time_key_data": ["relayed"],
    "offer_message": ["job-key-leak", "job-key-identity"],
    "transcript_head": ["job-key-leak", "job-key-identity"],
    "transcript_member": ["job-key-leak", "job-key-identity"],
    "share_info": ["job-key-leak", "job-key-identity"],
    "derivation_member": ["job-key-leak", "job-key-identity"],
    "key_info": ["job-key-leak", "job-key-identity"],
    "tag_info": ["job-key-leak", "job-key-identity"],
    "confirmed_message": ["job-key-leak", "job-key-identity"],
    "stated_member": ["statement", NO_LEAK],
    "statement_message": ["statement", NO_LEAK],
}


def annotated(model: str) -> list[tuple[str, str]]:
    """The expected answer to each query of a model, and what it means."""
    text = (HERE / f"{model}.pv").read_text()
    found = re.findall(r"\(\* expected (true|false): ([^*]*?) \*\)\nquery ", text)
    if len(found) != len(re.findall(r"^query ", text, re.MULTILINE)):
        sys.exit(f"{model}.pv: expected before each query what its answer is to be")
    return [(expected, " ".join(meaning.split())) for expected, meaning in found]


class Said(NamedTuple):
    """ProVerif's answers to the queries of a model, and how long it took over them."""

    answers: list[str]
    seconds: float


def ask(proverif: str, model: str, changes: list[Change]) -> Said:
    """Asks ProVerif the queries of a model with these changes."""
    with tempfile.TemporaryDirectory() as directory:
        for path in [*HERE.glob("*.pv"), *HERE.glob("*.pvl")]:
            shutil.copy(path, directory)
        for change in changes:
            path = Path(directory, change.file)
            text = path.read_text()
            if text.count(change.old) != 1:
                sys.exit(f"{change.file}: found {text.count(change.old)} times, expected once:\n{change.old}")
            path.write_text(text.replace(change.old, change.new))
        libraries = [word for name in LIBRARIES for word in ("-lib", f"{name}.pvl")]
        command = [Path(proverif).resolve(), *libraries, f"{model}.pv"]
        began = time.monotonic()
        with Path(directory, "said").open("w+") as said:
            try:
                code = subprocess.run(
                    command, cwd=directory, stdout=said, stderr=said, timeout=TIMEOUT_SECONDS, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
            said.seek(0)
            text = said.read()
        seconds = time.monotonic() - began
    if code not in (0, None):
        sys.exit(f"{model}: ProVerif said:\n{text[-2000:]}")
    results = re.findall(r"^RESULT .* (is true|is false|cannot be proved)\.$", text, re.MULTILINE)
    answers = [ANSWERS[result] for result in results]
    return Said(answers + ["no answer"] * (len(annotated(model)) - len(answers)), seconds)


def as_named(name: str) -> tuple[str, list[Change], list[str]]:
    """The model of this name, or the variant "model: what": the changes, and the answers expected."""
    model, colon, what = name.partition(": ")
    if not colon:
        return model, [], [expected for expected, _ in annotated(model)]
    [variant] = [it for it in VARIANTS if (it.model, it.what) == (model, what)]
    return model, variant.changes, variant.expected


def report(model: str, what: str, said: Said, expected: list[str]) -> bool:
    """Prints the answers with the meanings of the queries; whether they are the expected ones."""
    print(f"{model}{what and ': '}{what} ({said.seconds:.0f} s)")
    for answer, wanted, (_, meaning) in zip(said.answers, expected, annotated(model), strict=True):
        wrong = "" if answer == wanted else f"  EXPECTED {wanted}"
        print(f"  {answer:10} {meaning}{wrong}", flush=True)
    return said.answers == expected


def fields_of(definition: str) -> list[tuple[str, Change]]:
    """The fields of a definition, each with the change that leaves it out."""
    text = (HERE / "bindings.pvl").read_text()
    whole = re.search(rf"letfun {definition}\([^=]*=\n  \((.*?)\)\.\n", text, re.DOTALL)
    if whole is None:
        sys.exit(f"bindings.pvl: expected a definition of {definition}")
    fields = [" ".join(field.split()) for field in whole[1].split(",")]
    changes = []
    for index, field in enumerate(fields):
        others = ", ".join(fields[:index] + fields[index + 1 :])
        shorter = whole[0].replace(f"({whole[1]}).\n", f"({others}).\n")
        changes.append((field, Change("bindings.pvl", whole[0], shorter)))
    return changes


def outcome_of(changed: set[str]) -> str:
    """What becomes of a model without a field whose queries have these answers, none as expected."""
    if not changed:
        return "nothing breaks"
    return "breaks" if changed & {"true", "false"} else "not proved any more, and no attack found"


def main() -> None:
    proverif, *words = sys.argv[1:]
    mode = words.pop(0) if words and words[0] in ("variants", "fields") else ""
    variants = {f"{variant.model}: {variant.what}" for variant in VARIANTS} if mode == "variants" else set()
    if unknown := set(words) - set(MODELS) - variants:
        sys.exit(f"expected variants, fields or models, found {', '.join(sorted(unknown))}")
    chosen = words or MODELS
    good = True
    if mode == "variants":
        for variant in VARIANTS:
            if not {variant.model, f"{variant.model}: {variant.what}"} & set(chosen):
                continue
            said = ask(proverif, variant.model, variant.changes)
            good &= report(variant.model, variant.what, said, variant.expected)
    elif mode == "fields":
        for definition, all_names in FIELDS.items():
            names = [name for name in all_names if name.partition(": ")[0] in chosen]
            if not names:
                continue
            for field, change in fields_of(definition):
                changed = []
                for name in names:
                    model, changes, expected = as_named(name)
                    said = ask(proverif, model, [*changes, change])
                    answers = zip(said.answers, expected, annotated(model), strict=True)
                    changed += [
                        (answer, f"    {name}: {answer}: {meaning}\n")
                        for answer, wanted, (_, meaning) in answers
                        if answer != wanted
                    ]
                outcome = outcome_of({answer for answer, _ in changed})
                print(f"{definition} without {field}: {outcome}")
                print("".join(line for _, line in changed), end="", flush=True)
    else:
        for model in chosen:
            _, changes, expected = as_named(model)
            good &= report(model, "", ask(proverif, model, changes), expected)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
