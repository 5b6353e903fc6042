#!/usr/bin/env bash
# Pins what the container installs, with hashes: deploy/locks/{server,gpu,build}.txt. Run by `make lock`.
# Versions are those of constraints.txt where it names them; the rest stays as it is, or with UPGRADE=1 becomes the newest
# that is older than COOL_DOWN_DAYS.
# Most stolen releases are found and withdrawn within days, so a release is left alone for that long.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=${UV:-.venv/bin/uv}
days=${COOL_DOWN_DAYS:-5}
before=${LOCK_DATE:-$(date --utc --date="$days days ago" +%F)}
extras=(jobs postgres redis redact verify)

compile() { # OUTPUT INPUT [OPTIONS…]
  local output=$1
  shift
  if [ -f "$output" ] && [ -z "${UPGRADE:-}" ]; then
    cp "$output" "$output.new" # uv keeps what it finds there, as far as it can
  fi
  UV_PYTHON_DOWNLOADS=never "$uv" pip compile --quiet "$@" \
    --constraint constraints.txt --universal --python-version 3.11 --generate-hashes \
    --exclude-newer "$before" --no-annotate --no-header --output-file "$output.new" >/dev/null
  { echo "# made by \`make lock\`; nothing here was published after $before"; cat "$output.new"; } >"$output"
  rm "$output.new"
  echo "$output: $(grep -c '==' "$output") packages"
}

compile deploy/locks/server.txt pyproject.toml "${extras[@]/#/--extra=}"
compile deploy/locks/gpu.txt pyproject.toml --extra=kernels "${extras[@]/#/--extra=}"
compile deploy/locks/build.txt - < <(echo "hatchling>=1.27")
