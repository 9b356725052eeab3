#!/bin/bash
# Starts a container of one role, with the arguments of the script of the same name in Intel's "PSI with SGX".
set -euo pipefail

usage() {
    cat << 'END'
Starts a container of the service or of a data provider.

Usage: start_container.sh [OPTIONS] [NAME [PCCS-ADDRESS [TAG]]] [-- ARGUMENTS...]

  NAME          What the container is called (server). A name that begins with "server" or "service" is
                the service; any other is a data provider.
  PCCS-ADDRESS  The address that the container knows as pccs.service.com (127.0.0.1). It goes to
                Docker's --add-host.
  TAG           The images' tag (0.1.0).
  ARGUMENTS     What a provider does: those of convelo. The service takes none, since its arguments are
                measured.

Options:
  --data DIR              A provider's directory, mounted at /data: job file, key, table, results (.)
  --publish ADDRESS:PORT  Where the service is reached (0.0.0.0:7443)
  --dry-run               Prints the command instead of running it
  --help                  Prints this text

What differs from the script that it replaces, and why:
  seccomp   Docker's own profile stays on: gramine-sgx needs no other. gramine-direct, which protects
            nothing and is for trying out, would.
  network   Of its own, with one port published, not the host's.
  rights    An unprivileged user without capabilities, and a root that is read-only. Only the service sees
            SGX's devices and the host's AESM.
  /home     Stays outside. A provider sees the directory of --data, and runs as its owner.
  proxies   http_proxy, https_proxy and no_proxy of this shell go to a provider, which may fetch
            collateral; the service fetches nothing.
END
}

fail() {
    echo "start_container.sh: $*" >&2
    exit 2
}

data=.
publish=0.0.0.0:7443
dry_run=
positional=()
arguments=()
while (($#)); do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --dry-run) dry_run=yes ;;
        --data | --publish)
            (($# > 1)) || fail "$1 needs a value; --help explains it"
            printf -v "${1#--}" %s "$2"
            shift
            ;;
        --) shift; arguments=("$@"); break ;;
        -*) fail "there is no option $1; --help lists them" ;;
        *) positional+=("$1") ;;
    esac
    shift
done
((${#positional[@]} <= 3)) || fail "there are more than three arguments; --help explains them"
name=${positional[0]:-server}
pccs=${positional[1]:-127.0.0.1}
tag=${positional[2]:-0.1.0}

command=(docker run --name "$name" --read-only --cap-drop ALL --security-opt no-new-privileges:true
    --pids-limit 512 --add-host "pccs.service.com:$pccs")
case $name in
    server* | service*)
        ((${#arguments[@]} == 0)) || fail "the service takes no arguments: they are in its manifest, and measured"
        command+=(--detach --restart unless-stopped --publish "$publish:7443")
        for device in /dev/sgx_enclave /dev/sgx_provision; do
            if [[ -e $device ]]; then
                command+=(--device "$device" --group-add "$(stat -c %g "$device")")
            elif [[ -z $dry_run ]]; then
                fail "this host has no $device: SGX is off, or the kernel is older than 5.11"
            else
                command+=(--device "$device")
            fi
        done
        # The directory, not the socket: AESM makes a new socket when it is restarted.
        command+=(--volume /var/run/aesmd:/var/run/aesmd:ro "convelo/service:$tag")
        ;;
    *)
        [[ -d $data ]] || fail "$data, the directory of --data, does not exist"
        # A key must belong to whoever runs the program, so a provider runs as its directory's owner.
        owner=$(stat -c %u:%g "$data")
        [[ $owner != 0:* ]] || fail "$data belongs to root: give it, and what is in it, to the image's user" \
            "(chown -R 10001:10001 $data) or to yours"
        command+=(--rm --user "$owner" --volume "$(realpath "$data"):/data")
        for proxy in http_proxy https_proxy no_proxy; do
            [[ -z ${!proxy:-} ]] || command+=(--env "$proxy")
        done
        command+=("convelo/provider:$tag" "${arguments[@]}")
        ;;
esac

if [[ -n $dry_run ]]; then
    printf '%q ' "${command[@]}"
    echo
else
    exec "${command[@]}"
fi
