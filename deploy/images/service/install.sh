#!/bin/sh
# Installs Gramine and, if asked, AESM with a quote provider: install.sh GRAMINE QUOTE_PROVIDER
#
# GRAMINE: a version such as 1.9, or none. QUOTE_PROVIDER: host, intel or azure.
set -eu
gramine=$1
provider=$2

refuse() {
    echo "$*" >&2
    exit 1
}

case $provider in
    host | intel | azure) ;;
    *) refuse "QUOTE_PROVIDER is host, intel or azure, not '$provider'" ;;
esac
if [ "$gramine" = none ]; then
    [ "$provider" = host ] || refuse "without Gramine there are no SGX quotes: leave QUOTE_PROVIDER out"
    exit 0
fi

# Names the system: ID, VERSION_ID, VERSION_CODENAME.
# shellcheck disable=SC1091
. /etc/os-release
keys=/usr/share/keyrings
lists=/etc/apt/sources.list.d

# add NAME KEY-URL REPOSITORY...
add() {
    name=$1
    key=$2
    shift 2
    curl --fail --silent --show-error --location --output "$keys/$name" "$key"
    echo "deb [arch=amd64 signed-by=$keys/$name] $*" > "$lists/${name%.*}.list"
}

with_apt() {
    case $ID-$VERSION_CODENAME in
        # Intel's packages for Ubuntu 22.04 are those that Gramine names for Debian 12.
        debian-bookworm) intel=jammy ;;
        ubuntu-jammy | ubuntu-noble) intel=$VERSION_CODENAME ;;
        *) refuse "Gramine has packages for Debian 12, Ubuntu 22.04 and 24.04, not for $PRETTY_NAME" ;;
    esac
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install --yes --no-install-recommends ca-certificates curl
    add gramine.gpg https://packages.gramineproject.io/gramine-keyring.gpg \
        https://packages.gramineproject.io/ "$VERSION_CODENAME" main
    add intel-sgx.asc https://download.01.org/intel-sgx/sgx_repo/ubuntu/intel-sgx-deb.key \
        https://download.01.org/intel-sgx/sgx_repo/ubuntu "$intel" main
    packages="gramine=$gramine*"
    aesm="sgx-aesm-service libsgx-aesm-ecdsa-plugin libsgx-aesm-quote-ex-plugin"
    case $provider in
        intel) packages="$packages $aesm libsgx-dcap-default-qpl" ;;
        azure)
            [ "$ID" = ubuntu ] || refuse "Microsoft has az-dcap-client for Ubuntu: build with" \
                "BASE=docker.io/library/ubuntu:22.04"
            add microsoft.asc https://packages.microsoft.com/keys/microsoft.asc \
                "https://packages.microsoft.com/ubuntu/$VERSION_ID/prod" "$VERSION_CODENAME" main
            packages="$packages $aesm az-dcap-client"
            ;;
    esac
    apt-get update
    # One word is one package.
    # shellcheck disable=SC2086
    apt-get install --yes --no-install-recommends $packages
    apt-get purge --yes --auto-remove curl
    apt-get clean
    rm -rf /var/lib/apt/lists/*
}

with_dnf() {
    [ "$provider" = host ] || refuse "on $PRETTY_NAME, Intel's SGX packages come as an archive, not from" \
        "a repository: install AESM on the host, and leave QUOTE_PROVIDER out"
    curl --fail --silent --show-error --location --output /etc/yum.repos.d/gramine.repo \
        https://packages.gramineproject.io/rpm/gramine.repo
    dnf install --assumeyes epel-release
    dnf install --assumeyes "gramine-$gramine*"
    dnf clean all
}

case $ID in
    debian | ubuntu) with_apt ;;
    anolis | almalinux | rocky | centos | rhel) with_dnf ;;
    *) refuse "no Gramine packages are known for $PRETTY_NAME; README.md has the bases" ;;
esac

if [ "$provider" != host ]; then
    # AESM runs as the image's user, in these directories alone.
    mkdir -p /var/run/aesmd /var/opt/aesmd/data
    chown -R 10001:10001 /var/run/aesmd /var/opt/aesmd
fi
