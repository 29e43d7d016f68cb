"""VBench's own dimensions of a video, by VBench itself, where a Python has it installed.

Subject and background consistency, aesthetic and imaging quality need trained models (DINO, CLIP, LAION's aesthetic head, MUSIQ), which
are not part of this pack. VBench 0.1.5 pins NumPy 1 and Transformers 4.33, so it lives in an environment of its own and is called there.
Nothing is fetched from here: a dimension whose files are not in VBENCH_CACHE_DIR is left out, and the files are named.
Source: VBench, arXiv 2311.17982; `init_submodules` of its utils.py for the files.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import KnotForcingError

# dimension -> what VBench needs of its cache for it
DIMENSIONS = {
    "temporal_flickering": (),
    "subject_consistency": ("dino_model/facebookresearch_dino_main", "dino_model/dino_vitbase16_pretrain.pth"),
    "background_consistency": ("clip_model/ViT-B-32.pt",),
    "aesthetic_quality": ("clip_model/ViT-L-14.pt", "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth"),
    "imaging_quality": ("pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",),
}
SUFFIXES = (".mp4", ".gif")  # of videos that VBench reads
INSTALL = "python -m venv vbench-env && vbench-env/bin/pip install vbench"
_PROGRAM = """
import sys
from vbench import VBench
video, folder, device, dimension = sys.argv[1:]
VBench(device, "", folder).evaluate(videos_path=video, name="video", dimension_list=[dimension], local=True, mode="custom_input")
"""


@dataclass(frozen=True)
class VBenchScores:
    """What VBench 0.1.5 finds for one video of any prompt, 0..1 each, and why it found no more."""

    scores: dict[str, float]
    missing: dict[str, str]  # dimension -> the files that are not there, or the last thing that was said


def vbench(video: Path, python: Path | str = sys.executable, device: str = "cpu") -> VBenchScores:
    """Ask for every dimension by itself: one whose model cannot be had does not take the others with it.

    Raises KnotForcingError where `python` has no VBench."""
    if video.suffix.lower() not in SUFFIXES:
        raise KnotForcingError(f"VBench reads {' and '.join(SUFFIXES)}, and this is {video.name}. Convert the video first.")
    found = _run(python, "-c", "import vbench")
    if found.returncode:
        raise KnotForcingError(
            f"VBench is not usable in {python} ({_last(found)}). Install it in an environment of its own ({INSTALL}) and give that Python: "
            f"--vbench vbench-env/bin/python."
        )
    scores, missing = {}, {}
    cache = Path(os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench")
    for dimension, files in DIMENSIONS.items():
        if absent := [file for file in files if not (cache / file).exists()]:
            missing[dimension] = f"{cache} lacks {', '.join(absent)}"
            continue
        with tempfile.TemporaryDirectory() as folder:
            done = _run(python, "-c", _PROGRAM, str(video.resolve()), folder, device, dimension)
            results = Path(folder) / "video_eval_results.json"
            if done.returncode or not results.exists():
                missing[dimension] = _last(done)
            else:
                scores[dimension] = float(json.loads(results.read_text())[dimension][0])
    return VBenchScores(scores, missing)


def _run(python: Path | str, *words: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run([str(python), *words], capture_output=True, text=True)
    except OSError as problem:
        raise KnotForcingError(f"{python} cannot be run ({problem}). Give the Python that has VBench installed.") from problem


def _last(done: subprocess.CompletedProcess) -> str:
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
