#!/bin/sh
# Makes a root directory of a program's directory and of what the program loads, and of nothing else:
# gather.sh ROOT DIRECTORY PROGRAM
#
# The libraries are those of the system that this runs on. Their packages are noted where scanners of
# images look for them.
set -eu
root=$1
from=$2
program=$3

libraries=$(ldd "$from/$program" | sed -n 's/^.*[[:space:]]\(\/[^[:space:]]*\) (0x.*$/\1/p')
directory=$(dirname "$(echo "$libraries" | grep '/libc\.so\.6$')")
# Before its version 2.34, glibc loads these when it resolves a name.
for name in libnss_dns.so.2 libnss_files.so.2 libresolv.so.2; do
    if [ -e "$directory/$name" ]; then
        libraries="$libraries $directory/$name"
    fi
done

mkdir -p "$root/etc" "$root/tmp" "$root/opt"
chmod 1777 "$root/tmp"
for library in $libraries; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
cp -R "$from" "$root/opt/convelo"
cp -L /etc/os-release "$root/etc/os-release"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
echo 'root:x:0:0:root:/:/usr/sbin/nologin' > "$root/etc/passwd"
echo 'root:x:0:' > "$root/etc/group"

if command -v dpkg-query > /dev/null; then
    notes="$root/var/lib/dpkg/status.d"
    mkdir -p "$notes"
    for library in $libraries; do
        file=$(realpath "$library")
        # A package may name the file by either of its paths.
        package=$(dpkg-query --search "$file" 2> /dev/null || dpkg-query --search "${file#/usr}")
        package=${package%%:*}
        dpkg-query --status "$package" > "$notes/$package"
    done
elif command -v rpm > /dev/null; then
    notes="$root/usr/share/doc/convelo"
    mkdir -p "$notes"
    for library in $libraries; do
        rpm --query --file "$library"
    done | sort -u > "$notes/packages.txt"
fi
