#!/bin/sh
# The service's operator makes a simulated platform, and gives the parties what they verify it with.
set -eu
if [ -d /data/platform ]; then
    # Policies accept collateral for seven days.
    convelo simulator collateral /data/platform
else
    convelo simulator new /data/platform
fi
cp /data/platform/policy.toml /data/platform/collateral.json /public/
