#!/bin/sh
# Which version a release has, and what is new in it.
set -eu
cd "$(dirname "$0")/../.."

usage="usage: version.sh vX.Y.Z
           Prints the version that this tag stands for, if Cargo.toml has it and CHANGELOG.md a section
           for it, with a date.
       version.sh --notes X.Y.Z
           Prints that section without its heading."

fail() {
    echo "version.sh: $1" >&2
    exit 1
}

# The section's heading is "## [X.Y.Z] - YYYY-MM-DD".
notes() {
    awk -v heading="## [$1] - " '
        index($0, "## [") == 1 { inside = index($0, heading) == 1; next }
        inside { print }' CHANGELOG.md
}

case ${1-} in
    --help)
        printf '%s\n' "$usage"
        ;;
    --notes)
        [ $# -eq 2 ] || fail "$usage"
        found=$(notes "$2")
        [ -n "$found" ] || fail "CHANGELOG.md has no section '## [$2] - DATE'"
        printf '%s\n' "$found"
        ;;
    v[0-9]*)
        [ $# -eq 1 ] || fail "$usage"
        version=${1#v}
        built=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
        [ "$version" = "$built" ] || fail "the tag is $1, and Cargo.toml has version $built"
        [ -n "$(notes "$version")" ] || fail "CHANGELOG.md has no section '## [$version] - DATE'"
        printf '%s\n' "$version"
        ;;
    *)
        fail "$usage"
        ;;
esac
