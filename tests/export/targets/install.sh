#!/usr/bin/env bash
# An environment for each trainer that exports are written for, under the folder given as $1.
#
# None of them can share one with the project (other versions of transformers and its kin), and all of them
# want more than reading a configuration takes. So each gets exactly the packages of its list, and borrows what
# else it imports (torch, numpy, ...) from the project's environment, $2, which it sees behind its own.
set -euo pipefail
cd "$(dirname "$0")"
environments=$1 project=$2
borrowed=$("$project/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for list in *.txt; do
    place=$environments/${list%.txt}
    rm -rf "$place"
    "$project/bin/python" -m venv --without-pip "$place"
    echo "$borrowed" > "$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
    "$project/bin/python" -m pip --python "$place/bin/python" install --quiet --no-deps -r "$list"
done
