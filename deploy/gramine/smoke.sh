#!/usr/bin/env bash
# Whether the measured program runs under Gramine on this machine. SGX hardware is not needed: it runs in gramine-direct,
# and the attestation device is played by device.py, which quotes on a simulated platform.
set -euo pipefail

usage() {
    cat <<'TEXT'
Runs convelo-service under Gramine, without SGX hardware.

Usage: deploy/gramine/smoke.sh [--program FILE] [--convelo FILE]

  --program FILE   The measured program (target/release-service/convelo-service, built if it is missing)
  --convelo FILE   The command line for the providers (target/debug/convelo, built if it is missing)

It takes root, since it starts everything in namespaces of its own, and about a minute. sudo's own path has no cargo, so
keep yours: sudo env "PATH=$PATH" deploy/gramine/smoke.sh. It checks that
  (a) the manifest is rendered and holds, and gives the same MRENCLAVE twice: the published one, if it is published
  (b) without a device, the program ends with exit code 1 and says what to do, within 5 s
  (c) with a device, a job of two parties is right; one party that is killed ends the job for the other, who is told;
      the next job is right; and SIGTERM ends the program with exit code 0 within 5 s

Exit codes: 0 all of it holds, 1 something does not, 2 the command line is wrong, 3 it was NOT RUN.
TEXT
}

not_run() {
    echo "smoke.sh: NOT RUN: $1" >&2
    echo "smoke.sh: nothing was tested" >&2
    exit 3
}

fail() {
    echo "smoke.sh: FAILED: $1" >&2
    exit 1
}

wrong() {
    echo "smoke.sh: $1; --help says more" >&2
    exit 2
}

program='' convelo='' inside=''
while (($# > 0)); do
    case "$1" in
    --help | -h)
        usage
        exit 0
        ;;
    --program | --convelo | --inside)
        (($# > 1)) || wrong "$1 needs a value"
        declare "${1#--}=$2"
        shift 2
        ;;
    *) wrong "there is no option '$1'" ;;
    esac
done

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(cd "$here/../.." && pwd)"

# Waits until a file says something; so long at the most.
wait_for() {
    local words="$1" file="$2" seconds="$3" deadline
    deadline=$((SECONDS + seconds))
    until grep -q -- "$words" "$file" 2>/dev/null; do
        if ((SECONDS > deadline)); then
            cat "$file" >&2 || true
            fail "'$words' did not come within $seconds s"
        fi
        sleep 0.1
    done
}

# What follows the namespaces: $inside is a directory with all that it needs.
if [[ -n "$inside" ]]; then
    cd "$inside"
    PATH="$inside/bin:$PATH"
    ip link set lo up
    mount -t tmpfs tmpfs /opt
    mkdir /opt/convelo
    cp --preserve=mode "$inside/measure/convelo-service" /opt/convelo/

    echo "(b) without a device"
    code=0
    (cd measure && timeout 5 gramine-direct convelo-service) >without.log 2>&1 || code=$?
    if ((code != 1)); then
        cat without.log >&2
        fail "the exit code was $code, not 1"
    fi
    grep -q gramine-sgx without.log || fail "it does not say how to run it: $(cat without.log)"

    echo "(c) with a device: two parties"
    python3 "$here/device.py" "$inside/device" "$inside/bin/quote" "$inside/platform" convelo-service >device.log 2>&1 &
    wait_for ready device.log 5
    (cd variant && exec gramine-direct convelo-service) >service.log 2>&1 &
    service=$!
    wait_for listening service.log 30

    party() {
        timeout 60 convelo run "$1.toml" --as "$2" --input "$2.csv" --key id --output "$1.$2.csv" \
            --identity "$2.key" --collateral platform/collateral.json --insecure-simulated >"$1.$2.log" 2>&1
    }
    both_are_right() {
        party "$1" alice &
        local other=$!
        party "$1" bob || fail "$(cat "$1.bob.log")"
        wait "$other" || fail "$(cat "$1.alice.log")"
        for name in alice bob; do
            # Each table has 1,000 ids more than the common 1,000, and a header.
            [[ "$(wc -l <"$1.$name.csv")" == 1001 ]] || fail "$1: $name has $(wc -l <"$1.$name.csv") lines"
        done
    }
    both_are_right first

    echo "(c) a party is killed"
    timeout 90 convelo run killed.toml --as alice --input alice.csv --key id --output killed.alice.csv \
        --identity alice.key --collateral platform/collateral.json --insecure-simulated >killed.alice.log 2>&1 &
    alice=$!
    wait_for 'waiting for bob' killed.alice.log 10
    # Its table is so large that it is in the midst of it when it is killed.
    { echo id && seq 1 3000000; } >large.csv
    convelo run killed.toml --as bob --input large.csv --key id --output killed.bob.csv \
        --identity bob.key --collateral platform/collateral.json --insecure-simulated >killed.bob.log 2>&1 &
    bob=$!
    wait_for 'have agreed on a job key' killed.bob.log 20
    kill -KILL "$bob" || fail "bob has ended by itself: $(cat killed.bob.log)"
    code=0
    wait "$alice" || code=$?
    ((code == 1)) || fail "alice's exit code was $code, not 1, in a job that bob has left"
    grep -q "'bob' left the job" killed.alice.log || fail "alice is not told that bob left: $(cat killed.alice.log)"
    both_are_right second

    echo "(c) SIGTERM"
    kill -TERM "$service"
    deadline=$((SECONDS + 5))
    while kill -0 "$service" 2>/dev/null; do
        ((SECONDS <= deadline)) || fail 'SIGTERM did not end it within 5 s'
        sleep 0.1
    done
    code=0
    wait "$service" || code=$?
    ((code == 0)) || fail "after SIGTERM the exit code was $code, not 0"
    exit 0
fi

for tool in gramine-direct gramine-manifest gramine-sgx-sign gramine-sgx-sigstruct-view; do
    command -v "$tool" >/dev/null || not_run "Gramine is missing here ($tool)"
done
for tool in cargo ip openssl python3 unshare; do
    command -v "$tool" >/dev/null || not_run "$tool is missing here"
done
((EUID == 0)) || not_run 'it takes root'

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
cd "$repository"
if [[ -z "$program" ]]; then
    program="$repository/target/release-service/convelo-service"
    [[ -f "$program" ]] || cargo xtask release --service --once >&2
fi
if [[ -z "$convelo" ]]; then
    convelo="$repository/target/debug/convelo"
    [[ -f "$convelo" ]] || cargo build --locked --package convelo-cli >&2
fi
cargo build --locked --package convelo-simulator --example quote >&2
cp "${CARGO_TARGET_DIR:-$repository/target}/debug/examples/quote" "$work/bin/quote"
cp "$convelo" "$work/bin/convelo"

echo "(a) the manifest, twice"
"$here/build.sh" --measure --program "$program" --output "$work/measure" >"$work/first"
"$here/build.sh" --measure --program "$program" --output "$work/again" >"$work/second"
cmp "$work/first" "$work/second" || fail 'two runs gave two measurements'
mr_enclave="$(sed -n 's/^mr_enclave: //p' "$work/first")"
echo "MRENCLAVE $mr_enclave"
if grep -q "^mr_enclave = \"$mr_enclave\"" "$repository/deploy/measurements.toml"; then
    echo 'it is published in deploy/measurements.toml'
else
    echo 'it is not published in deploy/measurements.toml'
fi

# A manifest for the test, with a directory of the host's as device: it does not hold, and is never signed.
mkdir "$work/variant"
install -D -m 0755 "$work/measure/convelo-service" "$work/root/opt/convelo/convelo-service"
sed -e "s|^fs.mounts = \[|&\n  { path = \"/dev/attestation\", uri = \"file:$work/device\" },|" \
    "$here/convelo-service.manifest.template" >"$work/variant/template"
echo "sgx.allowed_files = [\"file:$work/device/\"]" >>"$work/variant/template"
sizes="$(cargo xtask manifest sizes)"
gramine-manifest --chroot "$work/root" -Dmemory=1G -Dworkers=4 -Dprodid=1 -Dsvn=1 \
    -Dthreads="$(sed -n 's/^max_threads: //p' <<<"$sizes")" -Denclave="$(sed -n 's/^enclave: //p' <<<"$sizes")" \
    "$work/variant/template" "$work/variant/convelo-service.manifest"

cd "$work"
PATH="$work/bin:$PATH"
convelo simulator new platform >&2
parties=()
for name in alice bob; do
    parties+=(--party "$name=$(convelo keygen "$name" 2>&1 | sed -n 's/^key = "\(.*\)"$/\1/p')")
done
for job in first killed second; do
    convelo init "$job.toml" --name "$job" --policy platform/policy.toml --service 127.0.0.1:7443 "${parties[@]}" >&2
done
sed -i -e 's/^name = "email"$/name = "id"/' -e 's/^normalise = \["email"\]$/normalise = ["trim"]/' ./*.toml
{ echo id && seq 1 2000; } >alice.csv
{ echo id && seq 1001 3000; } >bob.csv

# Whatever is started in there ends with it.
unshare --mount --propagation private --net --pid --fork --kill-child --mount-proc "$here/smoke.sh" --inside "$work"
echo 'smoke.sh: all of it holds'
