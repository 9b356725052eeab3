"""Removes one field after the other from the models, and asks Verifpal what then becomes possible.

    python3 docs/model/ablate.py VERIFPAL

prints one line a field: the queries that no longer hold, or that none was broken.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

QUOTES = ("fresh_quote =", "fresh_ok =", "stranger_quote =")
EXPORTER = ["service_exporter", "party_exporter", "stranger_exporter"]
NONCES = ["service_nonce", "stranger_nonce"]
TLS_KEY = ["tls_public", "tls_public_too"]
OFFERS = ("alice_signed =", "bob_signed =", "alice_offer_ok =", "bob_offer_ok =")
SEALED = ("alice_sealed =", "bob_sealed =", "alice_context =", "bob_context =",
          "alice_share_opened =", "bob_share_opened =")

# Model, what is removed, the lines it stands in, the names it has there.
FIELDS = [
    ("attest", "measurement", QUOTES, ["measurement", "other_measurement"]),
    ("attest", "exporter", QUOTES, EXPORTER),
    ("attest", "party nonce", QUOTES, ["party_nonce"]),
    ("attest", "exporter and party nonce", QUOTES, [*EXPORTER, "party_nonce"]),
    ("attest", "service nonce", QUOTES, NONCES),
    ("attest", "exporter and service nonce", QUOTES, [*EXPORTER, *NONCES]),
    ("attest", "label", QUOTES, ["label_attest"]),
    ("attest", "role", QUOTES, ["role_service"]),
    ("attest", "service key", QUOTES, TLS_KEY),
    ("attest", "party key", QUOTES, ["party_public"]),
    ("attest", "job", QUOTES, ["job"]),
    ("job-key", "one-time key in the signature", OFFERS, ["alice_offer", "bob_offer"]),
    ("job-key", "name in the signature", OFFERS, ["name_alice", "name_bob"]),
    ("job-key", "job in the signature", OFFERS, ["job"]),
    ("job-key", "label of the signature", OFFERS, ["label_offer"]),
    ("job-key", "names in the sealing", SEALED, ["name_alice", "name_bob"]),
    ("job-key", "job in the sealing", SEALED, ["job"]),
    ("job-key", "offers in the sealing", SEALED, ["alice_offer", "bob_offer"]),
]


def without(model: str, lines: tuple[str, ...], names: list[str]) -> str:
    """The model, in whose lines the innermost hash that has such a name no longer has it."""
    out = []
    for line in model.splitlines(keepends=True):
        if line.strip().startswith(lines):
            for name in names:
                # Keys of exchanges and signatures are arguments of other functions than HASH.
                line = re.sub(rf"(?<=[(,] )\b{name}, |(?<=HASH\()\b{name}, |, {name}(?=\))", "", line)
        out.append(line)
    return "".join(out)


def broken(verifpal: str, model: str) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "model.vp")
        path.write_text(model)
        run = subprocess.run(
            [verifpal, "verify", path], capture_output=True, text=True, timeout=1800, check=False
        )
    said = run.stdout + run.stderr
    if "queries" not in said:
        sys.exit(f"verifpal said:\n{said}")
    failed = re.findall(r"FAIL x (\w+\? .+?)(?: \(|  \[|\n)", said)
    return list(dict.fromkeys(query.strip() for query in failed))


def main() -> None:
    for name, what, lines, names in FIELDS:
        model = (HERE / f"{name}.vp").read_text()
        altered = without(model, lines, names)
        if altered == model:
            sys.exit(f"{name}: nothing to remove for {what}")
        found = "; ".join(broken(sys.argv[1], altered)) or "nothing"
        print(f"{name:8} without {what:32} breaks: {found}", flush=True)


if __name__ == "__main__":
    main()
