#!/usr/bin/env bash
# From source to a signed enclave: builds convelo-service as it is measured, renders its manifest, checks and signs it,
# and prints what parties put into their policies. The key stays where it is; it is no part of the measurement.
set -euo pipefail

usage() {
    cat <<'TEXT'
Builds and signs the enclave of convelo-service.

Usage: deploy/gramine/build.sh --key FILE [OPTIONS]
       deploy/gramine/build.sh --measure [OPTIONS]

  --key FILE       The key that signs: RSA, 3072 bits, exponent 3 (gramine-sgx-gen-private-key makes one)
  --measure        Sign with a key that is thrown away, and keep nothing but the measurement
  --memory SIZE    All memory of the program: bytes, or with K, M or G (1G)
  --workers N      Worker threads, 1 to 64 (4)
  --prodid N       The signer's product number (1)
  --svn N          The security version (1)
  --program FILE   A program that `cargo xtask release --service` has built; without it, this builds it
  --output DIR     Where everything goes (target/gramine)
  --help           This text

It needs Gramine 1.9 (gramine-manifest, gramine-sgx-sign, gramine-sgx-sigstruct-view), cargo, and with --measure openssl.
No SGX hardware is needed. In DIR, afterwards: convelo-service, which belongs at /opt/convelo/convelo-service on the host;
convelo-service.manifest.sgx and convelo-service.sig, which gramine-sgx takes; and convelo-service.cdx.json, what the
program is made of.

Exit codes: 0 done, 1 a step failed, 2 the command line is wrong, 3 a tool is missing.
TEXT
}

wrong() {
    echo "build.sh: $1; --help lists the options" >&2
    exit 2
}

need() {
    if ! command -v "$1" >/dev/null; then
        echo "build.sh: $1 is missing: $2" >&2
        exit 3
    fi
}

key='' measure='' memory=1G workers=4 prodid=1 svn=1 program='' output=''
while (($# > 0)); do
    case "$1" in
    --help | -h)
        usage
        exit 0
        ;;
    --measure)
        measure=yes
        shift
        continue
        ;;
    --key | --memory | --workers | --prodid | --svn | --program | --output)
        [[ -n "${2:-}" ]] || wrong "$1 needs a value"
        declare "${1#--}=$2"
        shift 2
        ;;
    *) wrong "there is no option '$1'" ;;
    esac
done
for number in "$prodid" "$svn"; do
    # The whole of it: a line break would go on in what is printed for a policy.
    if ! [[ "$number" =~ ^(0|[1-9][0-9]{0,4})$ ]] || ((number > 65535)); then
        wrong '--prodid and --svn are numbers from 0 to 65535'
    fi
done
if [[ -n "$measure" && -n "$key" ]]; then wrong "--measure takes no key"; fi
if [[ -z "$measure" && -z "$key" ]]; then wrong "--key FILE or --measure is needed"; fi
if [[ -n "$key" && ! -r "$key" ]]; then wrong "the key $key cannot be read"; fi
if [[ -n "$program" && ! -f "$program" ]]; then wrong "there is no program $program"; fi

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(cd "$here/../.." && pwd)"
gramine='install Gramine 1.9, as docs/deploy-sgx.md says, or the build of it that deploy/measurements.toml names'
need gramine-manifest "$gramine"
need gramine-sgx-sign "$gramine"
need gramine-sgx-sigstruct-view "$gramine"
need sha256sum 'it is part of coreutils'
need cargo 'install Rust by rustup; rust-toolchain.toml names the version'
if [[ -n "$measure" ]]; then need openssl 'it makes the key that is thrown away'; fi

xtask() {
    (cd "$repository" && cargo xtask "$@")
}

sizes="$(xtask manifest sizes --memory "$memory" --workers "$workers")"
threads="$(sed -n 's/^max_threads: //p' <<<"$sizes")"
enclave="$(sed -n 's/^enclave: //p' <<<"$sizes")"

if [[ -z "$program" ]]; then
    xtask release --service --once --memory "$memory" --workers "$workers" >&2
    program="$repository/target/release-service/convelo-service"
fi

output="${output:-$repository/target/gramine}"
mkdir -p "$output"
output="$(cd "$output" && pwd)"
root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
if [[ -n "$measure" ]]; then
    key="$root/thrown-away.pem"
    (umask 077 && openssl genrsa -3 -out "$key" 3072 2>/dev/null)
fi

# The path of a trusted file is measured, so the program is installed below a root of its own.
install -D -m 0755 "$program" "$root/opt/convelo/convelo-service"
manifest="$output/convelo-service.manifest"
gramine-manifest --chroot "$root" \
    -Dmemory="$memory" -Dworkers="$workers" -Dthreads="$threads" -Denclave="$enclave" \
    -Dprodid="$prodid" -Dsvn="$svn" \
    "$here/convelo-service.manifest.template" "$manifest"
xtask manifest lint --root "$root" "$manifest" >&2
signature="$output/convelo-service.sig"
if [[ -n "$measure" ]]; then signature="$root/convelo-service.sig"; fi
# What an earlier run has left must not be taken for what this one signs.
rm -f "$signature" "$manifest.sgx"
# The date is signed, not measured; without one, everybody's file is the same.
gramine-sgx-sign --date 0000-00-00 --key "$key" --manifest "$manifest" --output "$manifest.sgx" \
    --sigfile "$signature" >&2
xtask manifest lint --root "$root" "$manifest.sgx" >&2

viewed="$(gramine-sgx-sigstruct-view "$signature")"
# One line of each field, or nothing that can be compared.
field() {
    sed -n "s/^ *$1 *[:=] *\"\{0,1\}\([0-9A-Za-z]*\)\"\{0,1\} *$/\1/p" <<<"$viewed"
}
refuse() {
    echo "build.sh: $1; gramine-sgx-sigstruct-view printed:" >&2
    tr -c '[:print:]\n' '?' <<<"$viewed" >&2
    exit 1
}
mr_enclave="$(field mr_enclave)"
mr_signer="$(field mr_signer)"
for hash in "$mr_enclave" "$mr_signer"; do
    [[ "$hash" =~ ^[0-9a-f]{64}$ ]] || refuse "mr_enclave and mr_signer must be one hash each"
done
[[ "$(field debug_enclave | tr A-Z a-z)" =~ ^(false|0|)$ ]] || refuse 'a debug enclave has no secrets'
for version in "isv_prod_id $prodid" "isv_svn $svn"; do
    read -r name asked <<<"$version"
    [[ "$(field "$name")" == "$asked" ]] ||
        refuse "$name was to be $asked, and the signature has '$(field "$name")'"
done

# Both of Gramine's libraries are measured, and each build of Gramine has others.
libsysdb="$(sed -n 's|^ *uri *= *"file:\(/.*/libsysdb\.so\)"$|\1|p' "$manifest" | head -n 1)"
libpal="$(dirname "$libsysdb")/sgx/libpal.so"
hash_of() {
    sha256sum "$1" | cut -d ' ' -f 1
}
version_of_gramine() {
    dpkg-query --show --showformat '${Version}' gramine 2>/dev/null && return
    if rpm --query gramine >/dev/null 2>&1; then
        rpm --query --queryformat '%{VERSION}-%{RELEASE}' gramine
        return
    fi
    echo 'not from a package'
}

cp "$root/opt/convelo/convelo-service" "$output/convelo-service.new"
mv "$output/convelo-service.new" "$output/convelo-service"
xtask sbom --package convelo-service --output "$output/convelo-service.cdx.json" >&2

cat <<TEXT
program sha256: $(hash_of "$root/opt/convelo/convelo-service")
gramine: $(version_of_gramine)
libpal.so sha256: $(hash_of "$libpal")
libsysdb.so sha256: $(hash_of "$libsysdb")
mr_enclave: $mr_enclave
mr_signer: $(if [[ -n "$measure" ]]; then echo 'of a key that is thrown away'; else echo "$mr_signer"; fi)
isv_prod_id: $prodid
isv_svn: $svn

# For a policy: convelo policy check says what it accepts
[[enclave]]
name = "convelo-service, $memory, $workers workers"
mr_enclave = "$mr_enclave"
isv_prod_id = $prodid
minimum_isv_svn = $svn
TEXT
