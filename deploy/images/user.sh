#!/bin/sh
# Adds the unprivileged user that everything in an image runs as, and the directory that it may write to,
# under a root directory: user.sh ROOT
#
# By lines of text, so that it works alike on every base, and on a root without programs.
set -eu
root=$1
mkdir -p "$root/etc" "$root/data" "$root/usr/local/bin"
echo 'convelo:x:10001:10001:convelo:/data:/usr/sbin/nologin' >> "$root/etc/passwd"
echo 'convelo:x:10001:' >> "$root/etc/group"
chown 10001:10001 "$root/data"
chmod 700 "$root/data"
ln -s /opt/convelo/convelo "$root/usr/local/bin/convelo"
