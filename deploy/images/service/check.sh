#!/bin/sh
# Takes over the files of a signed enclave, and refuses what must not be in an image:
# check.sh GRAMINE FROM TO
set -eu
gramine=$1
from=$2
to=$3

refuse() {
    echo "$*" >&2
    exit 1
}

# The program itself has the words, to read keys with.
if grep -rqe '-----BEGIN .*PRIVATE KEY-----' --exclude=convelo-service "$from"; then
    refuse "a private key is among the enclave's files: keep it outside, it must not be in an image"
fi
mkdir -p "$to"
take() {
    [ -f "$from/$1" ] || refuse "$1 is missing: deploy/gramine/build.sh makes it"
    cp "$from/$1" "$to/"
}
take convelo-service
take convelo-service.cdx.json
chmod 755 "$to/convelo-service"
if [ "$gramine" != none ]; then
    take convelo-service.manifest.sgx
    take convelo-service.sig
fi
