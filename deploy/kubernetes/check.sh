#!/bin/sh
# Passes on what kubectl has rendered, unless something in it is still open that only you can fill in:
#     kubectl kustomize DIRECTORY | deploy/kubernetes/check.sh | kubectl apply -f -
# It prints nothing then, so that nothing is applied, and ends with exit code 2.
set -eu
if [ "${1:-}" = --help ]; then
    echo "Usage: kubectl kustomize DIRECTORY | check.sh | kubectl apply -f -"
    echo "Passes on what is rendered, or nothing and exit code 2 if an address or a version is still open."
    exit 0
fi
if [ "$#" -gt 0 ]; then
    echo "check.sh: it takes no arguments, but what kubectl has rendered, on stdin; --help explains it" >&2
    exit 2
fi
rendered=$(cat)

refuse() {
    echo "check.sh: $*" >&2
    exit 2
}

[ -n "$rendered" ] || refuse "there is nothing to check: kubectl kustomize has printed nothing"
# Has a line that matches.
has() {
    printf '%s\n' "$rendered" | grep -Eq -- "$1"
}
# RFC 5737 and RFC 3849: addresses for examples.
if has "cidr:[[:space:]]*[\"']?(192\.0\.2\.|198\.51\.100\.|203\.0\.113\.|2001:[dD][bB]8:)"; then
    refuse "the network policy convelo-provider has an example's address: name your service's, as README.md" \
        "shows, in spec.egress[0].to"
fi
if has "cidr:[[:space:]]*[\"']?[0-9a-fA-F.:]+/0+([^0-9]|\$)"; then
    refuse "a network policy has a block of all addresses: name your service's"
fi
if has "image:[[:space:]]*[\"']?([^[:space:]]*:latest|[^:@[:space:]]+(:[0-9]+/[^:@[:space:]]+)?)[\"']?[[:space:]]*\$"; then
    refuse "an image has no version: name one, or better a digest"
fi
printf '%s\n' "$rendered"
