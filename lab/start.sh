#!/bin/sh
# Starts the autoencoder's training in the background, one thread, niced, or goes on where it stood: sh lab/start.sh RUN
# RUN holds shards/, recipe.json, vae/ and, for the measurements, avatars/. PYTHON: the environment's interpreter (default: ~/kf-train-venv/bin/python).
set -e
run=${1:?the folder of the run, for example ~/kf-train/run}
mkdir -p "$run/vae"
run=$(cd "$run" && pwd)
cd "$(dirname "$0")/.."
if [ -f "$run/vae/pid" ] && kill -0 "$(cat "$run/vae/pid")" 2>/dev/null; then
  kill -CONT "$(cat "$run/vae/pid")" # if it was paused
  echo "running as $(cat "$run/vae/pid")"
  exit 0
fi
[ -f "$run/recipe.json" ] || cp lab/recipes/autoencoder.json "$run/recipe.json"
OMP_NUM_THREADS=1 nohup nice -n 19 "${PYTHON:-$HOME/kf-train-venv/bin/python}" -m lab.autoencoder \
  --run "$run/vae" --shards "$run/shards" --recipe "$run/recipe.json" --drawn-by-others "$run/avatars" >> "$run/vae/out.txt" 2>&1 &
echo $! > "$run/vae/pid"
echo "started as $!; log: $run/vae/log.jsonl"
