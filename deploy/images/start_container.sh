#!/bin/bash
# Starts a container of one role, with the arguments of the script of the same name in Intel's "PSI with SGX".
set -euo pipefail

usage() {
    cat << 'END'
Starts a container of the service or of a data provider.

Usage: start_container.sh [OPTIONS] [NAME [PCCS-ADDRESS [TAG]]] [-- ARGUMENTS...]

  NAME          What the container is called (server). "server" and "service" are the service, also with
                a number (server2, service-2); any other is a data provider.
  PCCS-ADDRESS  The IP address that the container knows as pccs.service.com (127.0.0.1). It goes to
                Docker's --add-host. A service whose quotes come from the host's AESM asks no PCCS: there,
                the host's /etc/sgx_default_qcnl.conf counts, and this address has no effect.
  TAG           The images' tag (0.1.0).
  ARGUMENTS     What a provider does: those of convelo, always after "--". The service takes none, since
                its arguments are measured.

Options:
  --data DIR              A provider's directory, mounted at /data: job file, key, table, results (.). One
                          whose name begins with "-" is given as ./-name
  --publish ADDRESS:PORT  Where the service is reached (0.0.0.0:7443)
  --quote-provider WHO    The QUOTE_PROVIDER that the service's image was built with: host, intel or azure
                          (host). With intel and azure, AESM runs in the container, and gets
                          /dev/sgx_provision; with intel, it reads the host's /etc/sgx_default_qcnl.conf
  --dry-run               Prints the command instead of running it. Where the host has no SGX, the words
                          GROUP-OF-/dev/... stand for the number of a device's group
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

# check_value OPTION VALUE: what no option takes. Without this, an option whose value was forgotten would
# take the next option for it.
check_value() {
    [[ -n $2 ]] || fail "$1 is empty; --help explains it"
    [[ $2 != -* ]] || fail "$1 needs a value, and '$2' looks like an option; --help explains it"
    [[ $2 != *[[:cntrl:]]* ]] || fail "$1 has a line break or another control character in its value"
}

# An IPv4 address, or an IPv6 address without brackets.
is_address() {
    local octet octets
    if [[ $1 == *:* ]]; then
        [[ $1 =~ ^[0-9A-Fa-f:]+(:[0-9.]+)?$ && $1 == *:*:* ]]
        return
    fi
    [[ $1 =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}$ ]] || return 1
    IFS=. read -ra octets <<< "$1"
    for octet in "${octets[@]}"; do
        ((10#$octet <= 255)) || return 1
    done
}

is_published() {
    local host=${1%:*} port=${1##*:}
    [[ $1 == *:* && $port =~ ^[0-9]{1,5}$ ]] && ((10#$port >= 1 && 10#$port <= 65535)) || return 1
    if [[ $host == \[*\] ]]; then
        host=${host:1:-1}
        [[ $host == *:* ]] || return 1
    elif [[ $host == *:* ]]; then
        return 1
    fi
    is_address "$host"
}

declare -A options=()
dry_run=
positional=()
arguments=()
while (($#)); do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --dry-run) dry_run=yes ;;
        --data=* | --publish=* | --quote-provider=*)
            option=${1%%=*}
            check_value "$option" "${1#*=}"
            options[$option]=${1#*=}
            ;;
        --data | --publish | --quote-provider)
            (($# > 1)) || fail "$1 needs a value; --help explains it"
            check_value "$1" "$2"
            options[$1]=$2
            shift
            ;;
        --) shift; arguments=("$@"); break ;;
        -*) fail "there is no option $1; --help lists them" ;;
        *) positional+=("$1") ;;
    esac
    shift
done
behind='what a provider does comes after "--", as in: alice -- run job.toml --as alice'
((${#positional[@]} <= 3)) || fail "there are more than three arguments before \"--\"; $behind"
name=${positional[0]-server}
pccs=${positional[1]-127.0.0.1}
tag=${positional[2]-0.1.0}
data=${options[--data]-.}
publish=${options[--publish]-0.0.0.0:7443}
quotes=${options[--quote-provider]-host}
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9_.-]+$ ]] || fail "'$name' is not a name for a container: it has letters, digits," \
    "'_', '.' and '-', two at least"
is_address "$pccs" || fail "'$pccs' is not a PCCS-ADDRESS: an IP address is needed, such as 192.0.2.7, without" \
    "https:// and port; $behind"
[[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || fail "'$tag' is not a tag of an image; $behind"

# refuse_options ROLE OPTION...: those that mean nothing to this role are mistakes.
refuse_options() {
    local role=$1 option
    shift
    for option; do
        [[ -z ${options[$option]+given} ]] || fail "$name is $role, for which $option has no meaning"
    done
}

command=(docker run --name "$name" --read-only --cap-drop ALL --security-opt no-new-privileges:true
    --pids-limit 512 --add-host "pccs.service.com:$pccs")
if [[ $name =~ ^(server|service)([-_.]?[0-9]+)?$ ]]; then
    refuse_options "the service" --data
    ((${#arguments[@]} == 0)) || fail "the service takes no arguments: they are in its manifest, and measured"
    is_published "$publish" || fail "--publish is '$publish', not ADDRESS:PORT, such as 0.0.0.0:7443 or [::]:7443"
    command+=(--detach --restart unless-stopped --publish "$publish:7443")
    # Only AESM opens the provisioning device, so it stays outside where AESM does.
    devices=(/dev/sgx_enclave)
    case $quotes in
        # The directory, not the socket: AESM makes a new socket when it is restarted.
        host) from=(--volume /var/run/aesmd:/var/run/aesmd:ro) ;;
        intel | azure)
            devices+=(/dev/sgx_provision)
            from=(--tmpfs /var/run/aesmd:uid=10001 --tmpfs /var/opt/aesmd:uid=10001)
            ;;
        *) fail "--quote-provider is '$quotes', not host, intel or azure" ;;
    esac
    if [[ $quotes == intel ]]; then
        qcnl=/etc/sgx_default_qcnl.conf
        [[ -f $qcnl || -n $dry_run ]] || fail "this host has no $qcnl, which names the PCCS to AESM in the container"
        from+=(--volume "$qcnl:$qcnl:ro")
    fi
    for device in "${devices[@]}"; do
        if [[ -e $device ]]; then
            group=$(stat -c %g -- "$device")
        elif [[ -n $dry_run ]]; then
            group=GROUP-OF-$device
        else
            fail "this host has no $device: SGX is off, or the kernel is older than 5.11"
        fi
        command+=(--device "$device" --group-add "$group")
    done
    command+=("${from[@]}" "convelo/service:$tag")
else
    refuse_options "a data provider" --publish --quote-provider
    [[ -e $data ]] || fail "$data, the directory of --data, does not exist"
    [[ -d $data ]] || fail "$data, which --data names, is not a directory"
    data=$(realpath -- "$data")
    # Docker reads the words of --mount as a line of CSV; those of --volume it would split at each colon.
    [[ $data != *[,\"[:cntrl:]]* ]] || fail "the provider's directory, $data, has a comma, a double quote or a line" \
        "break in its name, which Docker cannot mount: give it another name"
    # A key must belong to whoever runs the program, so a provider runs as its directory's owner.
    owner=$(stat -c %u:%g -- "$data")
    [[ $owner != 0:* ]] || fail "the provider's directory, $data, belongs to root: name another by --data, or give" \
        "this one, and what is in it, to the image's user (chown -R 10001:10001 ${data@Q}) or to yours"
    command+=(--rm --user "$owner" --mount "type=bind,source=$data,target=/data")
    for proxy in http_proxy https_proxy no_proxy; do
        [[ -z ${!proxy:-} ]] || command+=(--env "$proxy")
    done
    command+=("convelo/provider:$tag" "${arguments[@]}")
fi

if [[ -n $dry_run ]]; then
    printf '%q ' "${command[@]}"
    echo
else
    exec "${command[@]}"
fi
