#!/usr/bin/env bash
# Which tests share a worker: pytest-xdist's `--dist loadgroup` under pytest 8.4.2 and 9.2.0.
#
# One would guess: tests with @pytest.mark.xdist_group("one") all run in one worker, whatever the version of pytest.
# What happens with pytest-xdist 3.8.0: under pytest 8.4.2 they do. Under pytest 9.2.0 the mark does nothing, and
# nothing says so: the plugin renames tests by an attribute that pytest no longer reads.
#
# Output seen:
#   pytest 8.4.2, pytest-xdist 3.8.0: 12 tests of one group ran in 1 worker
#   pytest 9.2.0, pytest-xdist 3.8.0: 12 tests of one group ran in 2 workers
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat >test_group.py <<'PYTHON'
import os
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(12))
def test_of_the_group(number):
    time.sleep(0.2)  # so that no worker is done before the other one has begun
    with open("workers", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
PYTHON

workers() { # PYTEST: in how many workers the group ran under this version
  python3 -m venv "env-$1"
  "env-$1/bin/pip" install --quiet --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0 execnet==2.1.1
  rm -f workers
  "env-$1/bin/pytest" -q -p no:cacheprovider -n 2 --dist loadgroup test_group.py >/dev/null
  [ "$(wc -l <workers)" = 12 ]
  count=$(sort -u workers | wc -l)
  echo "pytest $1, pytest-xdist 3.8.0: 12 tests of one group ran in $count worker$([ "$count" = 1 ] || echo s)"
}

workers 8.4.2
[ "$count" = 1 ] || { echo "changed: under pytest 8.4.2 the group is spread, too"; exit 1; }
workers 9.2.0
[ "$count" = 2 ] || { echo "changed: under pytest 9.2.0 the group stays together"; exit 1; }
