#!/bin/sh
# Which version a release has, and what is new in it.
set -eu
cd "$(dirname "$0")/../.."

usage="usage: version.sh vX.Y.Z
           Prints the version that this tag stands for, if Cargo.toml has it, CHANGELOG.md a section
           for it, with a date, and nothing in deploy and docs names an image, a tag or a file of
           another version.
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

# Where deploy and docs name another version than this one: images and their tags, labels, files of a
# release, and what commands are given. The log of measurements keeps the old ones.
others() {
    number='[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)[.0-9]*)?'
    before='convelo/(service|provider|try):|newTag: |VERSION=|tag \(|positional\[2\]:?-|convelo-(service )?|from-release '
    grep -rnoE --exclude=measurements.toml "($before|^deploy/images/start_container.sh .*192\.0\.2\.7 )$number" deploy docs \
        2> /dev/null | grep -vE "[^0-9.]$(printf '%s' "$1" | sed 's/\./\\./g')\$" || true
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
        found=$(others "$version")
        [ -z "$found" ] || fail "the version is $version, and these places name another:
$found"
        printf '%s\n' "$version"
        ;;
    *)
        fail "$usage"
        ;;
esac
