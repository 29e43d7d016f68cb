"""UMT5-XXL at its full size, from its file to one prompt read, on the CPU: how much memory that takes.

    python -m tests.benchmarks.text_encoder [--folder FOLDER] [--threads N] [--precision bf16]

Writes 11.4 GB of random float16 weights as ComfyUI's `umt5_xxl_fp16.safetensors` has them (its tokenizer inside), reads the file as
everybody does, reads one prompt, and removes the file. Peaks are the system's own count, see `whole_model.py`. Linux.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path

import sentencepiece
import torch
from transformers import UMT5Config, UMT5EncoderModel

from kf_core.checkpoints.umt5 import TABLE, read_umt5
from kf_core.encoders.umt5 import UMT5
from kf_core.errors import KnotForcingError
from kf_core.memory import give_back

from .whole_model import held, write

XXL = dict(vocab_size=256384, d_model=4096, d_kv=64, num_heads=64, d_ff=10240, num_layers=24)
PROMPT = "a person looks at the camera and speaks, smiling"


def tokenizer() -> bytes:
    """A small one; its ids are words of the large vocabulary all the same."""
    pieces = io.BytesIO()
    words = dict(vocab_size=60, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([PROMPT]), model_writer=pieces, minloglevel=2, **words)
    return pieces.getvalue()


def available() -> float:
    """Gigabytes (10^9) that the system would still give."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the file is written (default: the system's temporary folder)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    dtype = torch.bfloat16 if chosen.precision == "bf16" else torch.float32
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in UMT5EncoderModel(UMT5Config(**XXL)).state_dict().items() if name != TABLE}
    needed = sum(torch.Size(shape).numel() for shape in shapes.values()) * dtype.itemsize / 1e9
    if available() < needed + 2:
        raise KnotForcingError(f"{needed:.1f} GB of weights are to be held, and {available():.1f} GB of memory are left. Close something.")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        path = Path(folder) / "umt5_xxl_fp16.safetensors"
        write(path, shapes, torch.float16, spiece_model=tokenizer())
        give_back()
        print(f"file {path.stat().st_size / 1e9:.2f} GB; peak before reading {held()['VmHWM']:.2f} GB", flush=True)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: writing is not what is measured
        began = time.perf_counter()
        encoder = UMT5(*read_umt5(path, dtype=dtype))
        now = held()
        print(f"read in {time.perf_counter() - began:.0f} s: peak {now['VmHWM']:.2f} GB, held {now['RssAnon']:.2f} GB", flush=True)
        began = time.perf_counter()
        states = encoder(PROMPT)
        now, words = held(), int(states.any(dim=2).sum())
        print(
            f"a prompt of {words} tokens in {time.perf_counter() - began:.1f} s: peak {now['VmHWM']:.2f} GB, held {now['RssAnon']:.2f} GB"
        )
        print(f"states {tuple(states.shape)}, finite: {bool(states.isfinite().all())}")
        del encoder
        give_back()
        print(f"let go: held {held()['RssAnon']:.2f} GB")


if __name__ == "__main__":
    main()
