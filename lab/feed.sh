#!/bin/sh
# Makes shards for a training that may be running, until there are so many of each kind: sh lab/feed.sh RUN [COUNT]
# One thread, niced; what is there already is not made again. Seeds below 1000 are kept for shards made by hand.
set -e
run=$(cd "${1:?the folder of the run, for example ~/kf-train/run}" && pwd)
count=${2:-10}
cd "$(dirname "$0")/.."
py() { OMP_NUM_THREADS=1 nice -n 19 "${PYTHON:-$HOME/kf-train-venv/bin/python}" -m "$@"; }
[ -f "$run/heads-pack.npz" ] || py lab.heads.pack --out "$run/heads-pack.npz"
i=0
while [ "$i" -lt "$count" ]; do
  seed=$((3000 + i))
  there() { [ -f "$run/shards/$1-$seed.json" ]; }
  there heads || py lab.heads.make --pack "$run/heads-pack.npz" --out "$run/shards" --seed "$seed" --clips 150 --frames 4 --moments
  there heads-talk || py lab.heads.make --pack "$run/heads-pack.npz" --out "$run/shards" --name heads-talk --seed "$seed" --clips 24 --frames 17
  there drawn || py lab.drawn.make --out "$run/shards" --seed "$seed" --clips 100 --frames 4 --moments
  there drawn-talk || py lab.drawn.make --out "$run/shards" --name drawn-talk --seed "$seed" --clips 12 --frames 17
  # the finder's: faces small and large, off the middle, turned; its name keeps it out of the autoencoder's mix
  there finder-heads || py lab.heads.make --pack "$run/heads-pack.npz" --out "$run/shards" --name finder-heads --seed "$seed" \
    --clips 150 --frames 4 --moments --loose 4 --no-parts
  there finder-drawn || py lab.drawn.make --out "$run/shards" --name finder-drawn --seed "$seed" --clips 100 --frames 4 --moments --loose 4
  i=$((i + 1))
done
