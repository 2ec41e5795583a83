#!/bin/sh
# Sets up the Python of the second implementations under target/ and runs the exchange. Exit code 0: all agreed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv="$here/../../target/venv/decoder"
if ! "$venv/bin/python" -c 'from cryptography.hazmat.primitives.asymmetric import mlkem' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
fi
"$venv/bin/python" "$here/test_interop.py" "$@"
exec "$venv/bin/python" "$here/test_audit.py"
