#!/usr/bin/env bash
# Renews the digest behind each `image:tag@sha256:…` of the container and compose files. Run by `make pin`; look at the
# difference before you commit it. The digest is that of the index, which has every platform of the tag.
set -euo pipefail
cd "$(dirname "$0")"

if command -v skopeo >/dev/null; then
  raw() { skopeo inspect --raw "docker://$1"; }
elif docker buildx version >/dev/null 2>&1; then
  raw() { docker buildx imagetools inspect --raw "$1"; }
else
  echo "make pin: needs skopeo, or docker with buildx, and the registry" >&2
  exit 1
fi

manifest=$(mktemp)
trap 'rm -f "$manifest"' EXIT
files=(Containerfile compose.yaml)
for image in $(grep --no-filename --only-matching --extended-regexp '[a-z0-9./-]+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}' "${files[@]}" | sort --unique); do
  tag=${image%@*}
  raw "$tag" >"$manifest"
  test -s "$manifest" || { echo "make pin: nothing came for $tag" >&2; exit 1; }
  new="$tag@sha256:$(sha256sum <"$manifest" | cut --delimiter=' ' --fields=1)"
  if [ "$new" = "$image" ]; then
    echo "$tag: current"
  else
    sed --in-place "s|$image|$new|" "${files[@]}"
    echo "$tag: renewed"
  fi
done
