#!/bin/sh
# A provider makes its key, which stays in its own volume, and gives the others its fingerprint:
# key.sh NAME
set -eu
name=$1
if [ ! -f "/data/$name.key" ]; then
    convelo keygen "$name" --output "/data/$name.key" > /dev/null
fi
convelo key show "/data/$name.key" | grep -o 'sha256:[0-9a-f]*' > "/public/fingerprint"
echo "$name's key is $(cat "/public/fingerprint")"
