#!/bin/sh
# Some minutes of a card, on a bare machine without a network: sh lab/card.sh RUN OUT SECONDS
# RUN holds heads-pack.npz and, to go on from, vae/checkpoint.pt and shards/. Needs Python with PyTorch, numba, scipy, Pillow, einops,
# safetensors and tqdm; neither anny nor dlib. Shards are rendered there on all cores first. In OUT lie then the log, the sheets and,
# in parts of 16 MB, the checkpoint and the weights:  cat checkpoint.pt.* > checkpoint.pt
# The rate falls over the cpu_minutes of recipe-card.json, which begin with 7: about SECONDS / 60.
# DEVICE (default cuda), PYTHON, CLIPS of a shard, SHARDS of each kind.
set -e
run=${1:?the folder of the run}; out=${2:?where results go}; seconds=${3:-420}
mkdir -p "$run/shards" "$out"
run=$(cd "$run" && pwd); out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}; device=${DEVICE:-cuda}; cores=$(nproc); clips=${CLIPS:-150}; shards=${SHARDS:-$cores}
"$python" -c "import torch, numba, scipy, PIL, einops, safetensors, tqdm; torch.zeros(1, device='$device')"
export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
make() { seq 5000 $((4999 + shards)) | xargs -P "$cores" -I SEED "$python" -m "$@" --out "$run/shards" --seed SEED; }
heads="lab.heads.make --pack $run/heads-pack.npz"
"$python" -m $heads --sheet "$out/heads.png" --seed 5  # compiles, so that the others find it compiled
make $heads --clips "$clips" --frames 4 --moments
make $heads --name heads-talk --clips $((clips / 5 + 1)) --frames 17
make lab.drawn.make --clips "$clips" --frames 4 --moments
make lab.drawn.make --name drawn-talk --clips $((clips / 5 + 1)) --frames 17
"$python" -m lab.cartoons --out "$run/shards" --seed 5000 --clips $((clips / 5 + 1))
[ -f "$run/recipe-card.json" ] || cp lab/recipes/autoencoder-card.json "$run/recipe-card.json"
timeout -s TERM "$seconds" "$python" -m lab.autoencoder --run "$run/vae" --shards "$run/shards" --recipe "$run/recipe-card.json" \
  --device "$device" --processes $((cores > 2 ? cores - 2 : 1)) || echo "ended with $?"
for file in checkpoint.pt mean.safetensors; do split -b 16m -d "$run/vae/$file" "$out/$file."; done
mkdir -p "$run/vae/sheets"
cp -r "$run/vae/log.jsonl" "$run/vae/sheets" "$out"
