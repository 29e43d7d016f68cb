"""What `.ci/run` runs, one step after the other; every step is run, and the end says of each how it came out.

Needs Python 3.10 and nothing else: `develop.py` makes .venv for all but ComfyUI's own tests, which run by ComfyUI's own Python.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import develop  # noqa: E402
from tests.host.places import found_host, python_of  # noqa: E402

# Wherever numbers come out of sums that a processor may order or round otherwise. What is left out reads text, files and frames.
NUMERICAL = [
    *(f"tests/kf_core/{name}" for name in ("models", "sampling", "vae", "encoders", "test_precision.py")),
    "tests/kf_core/session/test_stream.py",
    "tests/kf_core/planning/test_memory.py",
    *(f"tests/kf_core/conditioning/test_{name}.py" for name in ("audio", "control")),
    *(f"tests/kf_core/metrics/test_{name}.py" for name in ("parity", "memory_probe", "flops")),
    "tests/reference",
]
# Where a training computes in the precision of its machine: one test file for each place that asks for it, and what it wrote.
TRAINING = [f"tests/lab/kf_tiny/test_{name}.py" for name in ("audio_gain", "student", "vae_training", "small_decoder")]
LOADING = [f"tests/kf_core/checkpoints/test_{name}.py" for name in ("decoder_only", "load", "vaes", "vace_file")]
OLD_PROCESSOR = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
BF16 = {"KF_PRECISION": "bf16"}  # emulated where the processor has none
NEEDED_BY_HOST_TESTS = ("pytest", "hypothesis", "skimage", "psutil")


def main() -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    steps = [
        ("lint", lambda: own("lint")),
        ("the suite", lambda: own("test")),
        ("numbers as a processor with AVX2 alone has them", as_an_old_processor),
        ("numbers in bfloat16", lambda: own("test", *NUMERICAL, *TRAINING, *LOADING, **BF16)),
        ("nodes in a real ComfyUI", lambda: host_tests("not soak and not slow")),
        ("the slow tests", lambda: own("test", "-m", "slow", "--ignore=tests/host")),
        ("the slow tests in ComfyUI", lambda: host_tests("slow")),
    ]
    report, failed = [], False
    for name, step in steps:
        print(f"\n=== {name}", flush=True)
        before = time.monotonic()
        passed, said = step()
        failed |= not passed
        report.append(f"{'passed' if passed else 'FAILED':<7} {(time.monotonic() - before) / 60:5.1f} min  {name}: {said}")
    print("\n=== .ci/run, in all\n" + "\n".join(report), flush=True)
    return 1 if failed else 0


def own(*words: str, **environment: str) -> tuple[bool, str]:
    """A word of `develop.py`, in this environment."""
    return run([sys.executable, "develop.py", *words], environment)


def as_an_old_processor() -> tuple[bool, str]:
    """The numerical part once more, where the suite has used more than AVX2."""
    asked = [str(develop.PYTHON), "-c", "import torch; print(torch.backends.cpu.get_cpu_capability())"]
    capability = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    if capability in ("DEFAULT", "AVX2"):
        return loud(f"this processor has no more than AVX2 ({capability}): the suite above was that")
    return own("test", *NUMERICAL, *TRAINING, **OLD_PROCESSOR)


def host_tests(marked: str) -> tuple[bool, str]:
    folder = found_host()
    if folder is None:
        return loud("NO COMFYUI FOUND: set COMFYUI_PATH to its folder, or the nodes are not tested in a real host")
    python = python_of(folder)
    if python is None:
        return loud(f"NO PYTHON OF COMFYUI'S OWN FOUND in or beside {folder}: set COMFYUI_PYTHON to it, or the nodes are not tested")
    missing = [name for name in NEEDED_BY_HOST_TESTS if not has(python, name)]
    if missing:  # nothing is installed into what is somebody's
        return loud(f"{python} LACKS {', '.join(missing).upper()}: install them there, or the nodes are not tested")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {"KF_REQUIRE_HOST": "1", "COMFYUI_PATH": str(folder), "PYTHONPATH": path}
    words = [str(python), "-m", "pytest", "-m", marked, *develop.NAME_WHAT_HANGS, "tests/host"]
    return run(words, environment)


def loud(line: str) -> tuple[bool, str]:
    print(line, flush=True)
    return True, line


def has(python: Path, module: str) -> bool:
    return subprocess.run([str(python), "-c", f"import {module}"], capture_output=True).returncode == 0


def run(words: list[str], environment: dict[str, str]) -> tuple[bool, str]:
    """Run it, show what it prints, and take its last line, which is pytest's own count."""
    shown = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    ran = subprocess.Popen(words, cwd=ROOT, env=os.environ | environment, text=True, errors="replace", **shown)
    last = ""
    for line in ran.stdout:
        print(line, end="", flush=True)
        if re.search(r"\d+ (passed|failed|skipped|error)|^All checks|already formatted|Found \d+ error", line):
            last = line.strip().strip("= ")
    return ran.wait() == 0, last or f"exit status {ran.returncode}"


if __name__ == "__main__":
    raise SystemExit(main())
