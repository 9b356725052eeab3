#!/bin/sh
# Puts a program, stripped, and the list of what it is made of into /out. The build stage of an image
# runs this in a copy of the repository: build.sh PACKAGE PROGRAM
#
# A build context with prebuilt/PROGRAM and prebuilt/PROGRAM.cdx.json brings both: nothing is compiled.
set -eu
package=$1
program=$2
mkdir -p /out/doc
cp LICENSE /out/doc/
if [ -f "prebuilt/$program" ]; then
    cp "prebuilt/$program" /out/
    cp "prebuilt/$program.cdx.json" /out/doc/
else
    cargo build --locked --profile dist --package "$package"
    cargo xtask sbom --package "$package" --output "/out/doc/$program.cdx.json"
    strip -o "/out/$program" "target/dist/$program"
fi
chmod 755 "/out/$program"
chmod 644 "/out/doc/$program.cdx.json"
