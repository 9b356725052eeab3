#!/bin/sh
# Builds what is released for one system: the program `convelo`, and a wheel with the Pool and the same
# program inside.
set -eu
cd "$(dirname "$0")/../.."

usage="usage: build.sh DIRECTORY
Builds the program convelo and the Python wheel with the same program inside, tries both, and puts them
into DIRECTORY with a list of what they are made of. For a release, it runs in PyPA's images for manylinux
and musllinux, which .github/workflows/release.yml names:
    docker run --rm --mount \"type=bind,source=\$PWD,target=/src\" --workdir /src IMAGE sh deploy/release/build.sh dist
Elsewhere, what it builds may need the C library of the system that it was built on.
CONVELO_PROFILE=dev takes less time, and gives nothing to release."
case ${1-} in
    --help)
        printf '%s\n' "$usage"
        exit
        ;;
    "" | -*)
        printf '%s\n' "$usage" >&2
        exit 2
        ;;
esac
out=$1
profile=${CONVELO_PROFILE:-dist}
# To name a version here is to trust what was published under it: whoever raises one looks at it first.
auditable=0.7.7

python=/opt/python/cp311-cp311/bin/python
[ -x "$python" ] || python=python3
[ -e /etc/alpine-release ] && libc=musl || libc=gnu

if ! command -v cargo > /dev/null; then
    # The toolchain itself is named in rust-toolchain.toml.
    curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs |
        sh -s -- -y --quiet --profile minimal --default-toolchain none
    PATH=$HOME/.cargo/bin:$PATH
fi

tools=target/release-tools
rm -rf "$tools/python" "$tools/wheel"
"$python" -m venv "$tools/python"
"$tools/python/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps \
    --requirement python/requirements/release.txt
cargo install --quiet --locked --root "$tools" --version "$auditable" cargo-auditable
PATH=$PWD/$tools/bin:$PATH

# A program that lists the versions of all that it is made of: `cargo audit bin` reads them.
cargo auditable build --locked --profile "$profile" --package convelo-cli
built=target/$profile
[ "$profile" != dev ] || built=target/debug
version=$("$built/convelo" --version)
version=${version#convelo }
name=convelo-$version-$(uname -m)-linux-$libc

mkdir -p "$out" "$tools/$name" "$tools/wheel"
strip -o "$tools/$name/convelo" "$built/convelo"
cp LICENSE README.md CHANGELOG.md SECURITY.md "$tools/$name"
cargo xtask sbom --package convelo-cli --output "$tools/$name/convelo.cdx.json"
cp "$tools/$name/convelo.cdx.json" "$out/$name.cdx.json"
tar --create --gzip --file "$out/$name.tar.gz" --directory "$tools" "$name"

"$tools/python/bin/python" -m maturin build --locked --quiet --profile "$profile" --auditwheel check \
    --manifest-path python/Cargo.toml --out "$tools/wheel"

# What lies in this directory of a wheel is put among the programs of whoever installs it.
scripts=$tools/wheel/convelo-$version/convelo-$version.data/scripts
"$tools/python/bin/python" -m wheel unpack --dest "$tools/wheel" "$tools/wheel/convelo-$version"-*.whl
mkdir -p "$scripts"
cp "$tools/$name/convelo" "$scripts/convelo"
"$tools/python/bin/python" -m wheel pack --dest-dir "$out" "$tools/wheel/convelo-$version"

# Installed where nothing else is, both halves must answer.
"$python" -m venv --clear "$tools/try"
"$tools/try/bin/python" -m pip --disable-pip-version-check install --quiet "$out/convelo-$version"-*.whl
[ "$("$tools/try/bin/convelo" --version)" = "convelo $version" ]
"$tools/try/bin/python" -c 'from convelo import Pool'
echo "build.sh: $out has $name and the wheel with it" >&2
