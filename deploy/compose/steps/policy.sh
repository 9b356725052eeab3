#!/bin/sh
# With SGX: the policy names the measured program, and its collateral comes from a PCCS.
# policy.sh FILE, before the service runs; policy.sh FILE SERVICE PCCS, when it does.
set -eu
convelo policy check "$1"
if [ "$#" -eq 3 ]; then
    convelo collateral export --for "$2" --pccs "$3" --output /collateral/collateral.json
else
    cp "$1" /public/policy.toml
fi
