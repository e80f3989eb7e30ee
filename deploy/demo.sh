#!/usr/bin/env bash
# npm run demo: sets up what is missing, then shows the main job. See deploy/demo.ts, or --help.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=demo
for word in "$@"; do
  case $word in --simulate | --help | -h) purpose=build ;; esac
done
bash deploy/setup.sh "$purpose"
exec node dist/deploy/demo.js "$@"
