#!/usr/bin/env bash
# fixtures/make.sh makes exactly the files that are there.
set -euo pipefail
cd "$(dirname "$0")/../fixtures"
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cp make.sh "$room"
"$room/make.sh"
cd "$room"
for file in *; do cmp "$file" "$OLDPWD/$file"; done
