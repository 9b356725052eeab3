#!/usr/bin/env python3
"""One party of SecretFlow's PSI: ``party_spu.py PROTOCOL RANK PORT PORT TABLE``. Rank 0 gets the result.

Prints one line of JSON: how many ids are common, and the processor seconds of the protocol without the
interpreter's start and imports.
"""

from __future__ import annotations

import json
import os
import resource
import sys

import spu.libspu.link as link
from spu import psi

CURVES, PROTOCOLS = psi.EllipticCurveType, psi.PsiProtocol
KNOWN = {
    "rr22": (PROTOCOLS.PROTOCOL_RR22, CURVES.CURVE_25519),
    "rr22_low": (PROTOCOLS.PROTOCOL_RR22, CURVES.CURVE_25519),
    "kkrt": (PROTOCOLS.PROTOCOL_KKRT, CURVES.CURVE_25519),
    "ecdh": (PROTOCOLS.PROTOCOL_ECDH, CURVES.CURVE_25519),
    "ecdh_ell2": (PROTOCOLS.PROTOCOL_ECDH, CURVES.CURVE_25519_ELLIGATOR2),
}

# Ids that are intersected at once. It is SecretFlow's default.
BUCKET = 1 << 20

TIMEOUT_MILLISECONDS = 3_600_000


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    # It makes the directory of its output, and fails if none is named.
    name, rank, table = sys.argv[1], int(sys.argv[2]), os.path.abspath(sys.argv[5])
    protocol, curve = KNOWN[name]
    parties = link.Desc()
    parties.recv_timeout_ms = TIMEOUT_MILLISECONDS
    for number, port in enumerate(sys.argv[3:5]):
        parties.add_party(f"party{number}", f"127.0.0.1:{port}")
    context = link.create_brpc(parties, rank)
    config = psi.PsiExecuteConfig(
        protocol_conf=psi.PsiProtocolConfig(
            protocol=protocol,
            receiver_rank=0,
            broadcast_result=False,
            bucket_size=BUCKET,
            ecdh_params=psi.EcdhParams(curve=curve),
            # Spelled so in 0.9.5.
            rr22_params=psi.Rr22Rarams(low_comm_mode=name == "rr22_low"),
        ),
        # With duplicates the output would be undefined; the tables have none.
        input_params=psi.InputParams(path=table, selected_keys=["id"], keys_unique=True),
        output_params=psi.OutputParams(path=f"{table}.matched", disable_alignment=True),
        join_conf=psi.ResultJoinConfig(),
        checkpoint_conf=psi.CheckpointConfig(),
    )
    before = cpu_seconds()
    report = psi.psi_execute(config, context)
    print(json.dumps({"cpu": cpu_seconds() - before, "common": report.intersection_count}), flush=True)
    context.stop_link()


if __name__ == "__main__":
    main()
