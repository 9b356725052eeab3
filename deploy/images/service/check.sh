#!/bin/sh
# Takes over the files of a signed enclave, and refuses what must not be in an image:
# check.sh GRAMINE FROM TO
#
# Only the files of an enclave are let through, since a key without a structure (32 random bytes) is
# known by nothing but its place. What looks like a key is refused by that name, also in those files.
# A base may have neither openssl nor python: what is here is in every one of them.
set -eu
gramine=$1
from=$2
to=$3

refuse() {
    echo "$*" >&2
    exit 1
}

# Whether a file is in a form that private keys have, by its text or its first bytes.
is_key() {
    # PEM of every kind (PKCS#1, PKCS#8, SEC1, OpenSSH, OpenPGP), SSH2, PuTTY, age, JWK; and the base64 of
    # a key's DER, without the lines around it.
    if grep -aqE -e '-----? ?BEGIN [A-Za-z0-9 ]*PRIVATE KEY' -e '^PuTTY-User-Key-File-' -e 'AGE-SECRET-KEY-1' \
        -e '^(MI[A-Za-z0-9+/]{2}AgE[AB]|MII[A-Za-z0-9+/]{3}IBA[AD]|MHcCAQEE|MC[A-Za-z0-9+/]CAQAw)' "$1"; then
        return 0
    fi
    if grep -aqE '"kty"' "$1" && grep -aqE '"(d|k)"[[:space:]]*:' "$1"; then
        return 0
    fi
    start=$(od -A n -v -t x1 -N 48 "$1" | tr -d ' \n')
    case $start in
        # JKS, JCEKS.
        feedfeed* | cececece*) return 0 ;;
        # A DER sequence: what is in it, behind the one to four bytes of its length.
        3080*) start=${start#3080} ;;
        3081*) start=${start#3081??} ;;
        3082*) start=${start#3082????} ;;
        3083*) start=${start#3083??????} ;;
        3084*) start=${start#3084????????} ;;
        30*) start=${start#30??} ;;
        *) return 1 ;;
    esac
    case $start in
        # PKCS#8 and RFC 5958 (version, then the algorithm); PKCS#1, DSA (version, then a number); SEC1
        # (version, then bytes); PKCS#12 (version 3, then the content).
        02010030* | 02010130* | 02010002* | 02010102* | 02010104* | 02010330*) return 0 ;;
        # PKCS#8, encrypted: the algorithm is one of PKCS#5 or PKCS#12.
        30??06092a864886f70d0105* | 3081??06092a864886f70d0105* | 30??060a2a864886f70d010c01*) return 0 ;;
    esac
    return 1
}

# The program itself has the words, to read keys with.
is_program() {
    [ "${1##*/}" = convelo-service ] && [ "$(od -A n -t x1 -N 4 "$1" | tr -d ' \n')" = 7f454c46 ]
}

known="convelo-service convelo-service.cdx.json convelo-service.manifest convelo-service.manifest.sgx convelo-service.sig"
for file in "$from"/* "$from"/.[!.]* "$from"/..?*; do
    [ -e "$file" ] || [ -L "$file" ] || continue
    name=${file##*/}
    if [ -f "$file" ] && ! is_program "$file" && is_key "$file"; then
        refuse "a private key is among the enclave's files, $name: keep it outside, it must not be in an image"
    fi
    case " $known " in
        *" $name "*) [ -f "$file" ] && [ ! -L "$file" ] || refuse "$name is not a file" ;;
        *) refuse "$name is not a file of an enclave, and may be a key: take it out of the enclave's directory" ;;
    esac
done
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
