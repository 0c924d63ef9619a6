#!/usr/bin/env bash
# Check the README's two commands as on a machine with Python and nothing else: the current commit in a new folder, an
# empty home, and a PATH without Chromium, uv and other Pythons. uv's cache is shared, so that nothing is downloaded twice.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() { # NAME COMMAND...: run a command, and say plainly if it was this one that failed
  local name=$1
  shift
  echo "check_fresh: $name"
  "$@" || { echo "check_fresh: FAILED: $name" >&2; exit 1; }
}

bare_path() { # all programs but those that a bare machine lacks
  local folder file
  mkdir "$work/bin" "$work/home"
  while IFS= read -rd: folder; do
    for file in "$folder"/*; do
      case ${file##*/} in
        chrom* | google-chrome* | python* | pip* | uv | uvx) ;;
        *) [ -x "$file" ] && [ ! -e "$work/bin/${file##*/}" ] && ln -s "$file" "$work/bin/" || : ;;
      esac
    done
  done <<<"$PATH:"
}

bare_python() { # where pip may install something, and beside it the machine's own, for uv takes no other
  python3 -m venv "$work/python"
  ln -s "$(python3 -c 'import sys; print(f"{sys.base_prefix}/bin/python3.{sys.version_info.minor}")')" "$work/bin/"
}

bare() { # COMMAND: run it in the clone, as on a bare machine; settings of package indexes and certificates stay
  local variable kept=(UV_PYTHON_DOWNLOADS=never)
  while IFS= read -r variable; do kept+=("$variable=${!variable}"); done < <(
    compgen -e | grep -E '^(UV_|PIP_|SSL_|REQUESTS_CA_BUNDLE$|CURL_CA_BUNDLE$|OMP_NUM_THREADS$|LANG$|LC_|PYTEST_ADDOPTS$)|_(proxy|PROXY)$'
  )
  (cd "$work/clone" && env -i "${kept[@]}" HOME="$work/home" PATH="$work/python/bin:$work/bin" bash -euc "$1")
}

says() { # WORDS...: what the tests must have said about what they left out
  local words
  for words in "$@"; do
    [ "$(grep -c "^skipped [0-9]*: $words" "$work/said")" = 1 ] || { echo "no line, or several: $words" >&2; return 1; }
  done
}

UV_CACHE_DIR=${UV_CACHE_DIR:-$(uv cache dir 2>/dev/null || echo "$work/cache")}
export UV_CACHE_DIR
[ -z "$(git -C "$repo" status --porcelain)" ] || echo "check_fresh: changes that are not committed are not checked"
step "clone the commit" git clone --quiet "$repo" "$work/clone"
step "collect the programs of a bare machine" bare_path
step "make a Python with nothing in it" bare_python
if [ -n "${COMPILED:-}" ]; then # CI only: the environment that `uv run` would make
  step "pip install uv && uv sync" bare "pip install --quiet uv && uv sync --quiet"
  step "copy what is compiled" "$repo/.ci/copy_bytecode" "$COMPILED" "$work/clone/.venv"
fi
step "pip install uv && uv run hf-metaprune demo" bare "pip install --quiet uv && uv run --quiet hf-metaprune demo"
step "uv run --extra dev pytest" bare "uv run --quiet --extra dev pytest 2>&1 | tee '$work/said'; exit \${PIPESTATUS[0]}"
step "one line for each thing that is missing" says "browser tests need Chromium" "WordNet tests need its data"
echo "check_fresh: both commands of the README work"
