"""Everything a checkout can do, with Python 3.10 or newer and nothing else: `python develop.py demo`.

    demo    make a talking video from the bundled portrait and voice
    test    run the tests but the slow ones (words after it go to pytest; `test -m slow` runs those)
    lint    check style and format
    setup   only prepare .venv, which every other word does first where it must

`make demo` and `make test` call this file. The first call makes .venv and installs into it; PyTorch comes as a CPU build unless the
environment variable KF_TORCH names another (KF_TORCH="torch --index-url https://download.pytorch.org/whl/cu128"). Standard library only.
"""

import os
import platform
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TORCH = "torch==2.13.0"  # what is tested; the pack itself takes whatever PyTorch its host has
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"  # on Linux, PyPI's own build brings gigabytes of CUDA
NEEDED = ("torch", "einops", "safetensors", "numpy", "av", "PIL", "tqdm", "soxr", "librosa", "scipy", "filelock")
MOST_WORKERS = 4  # that test at a time; each holds a PyTorch of its own, about 1 GB
NAME_WHAT_HANGS = ("-o", "faulthandler_timeout=900", "-o", "faulthandler_exit_on_timeout=true")  # fails with its stack, the rest goes on
NEEDED_FOR_TESTS = (
    "pytest", "xdist", "ruff", "hypothesis", "matplotlib", "psutil", "skimage", "transformers", "tokenizers", "sentencepiece", "diffusers",
    "soundfile",
)  # fmt: skip
DEMO_VIDEO = Path("out") / "demo.mp4"


def main(words: list[str]) -> int:
    deeds = {"demo": demo, "test": test, "lint": lint, "setup": setup}
    if not words or words[0] not in deeds:
        print(__doc__)
        return 0 if words and words[0] in ("-h", "--help") else 2
    os.chdir(ROOT)
    return deeds[words[0]](words[1:])


def demo(more: list[str]) -> int:
    prepare(NEEDED)
    DEMO_VIDEO.parent.mkdir(exist_ok=True)
    assets = Path("kf_core") / "assets"
    words = ["--portrait", str(assets / "example-portrait.png"), "--audio", str(assets / "example-voice.wav")]
    return run("-m", "kf_core", "animate", *words, "--out", str(DEMO_VIDEO), "--overwrite", *more)


def test(more: list[str]) -> int:
    prepare(NEEDED + NEEDED_FOR_TESTS)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads only get in each other's way
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    if not any(word == "-m" or word.startswith("-m=") for word in more):
        print("Tests marked slow are left out; `python develop.py test -m slow` runs them.", flush=True)
    return run("-m", "pytest", "-n", str(workers), "--dist", "worksteal", *NAME_WHAT_HANGS, *more)


def lint(more: list[str]) -> int:
    prepare(NEEDED + NEEDED_FOR_TESTS)
    return run("-m", "ruff", "check", ".", *more) or run("-m", "ruff", "format", "--check", ".", *more)


def setup(_: list[str]) -> int:
    prepare(NEEDED + NEEDED_FOR_TESTS)
    return 0


def prepare(modules: tuple[str, ...]) -> None:
    """Make .venv and install what is missing; a second call finds everything and does nothing."""
    if sys.version_info < (3, 10):  # noqa: UP036  run by whatever Python is at hand
        raise SystemExit(f"Python 3.10 or newer is needed, and this is {platform.python_version()}.")
    if PYTHON.exists() and has(modules):
        return
    make_venv()
    print("Installing (once; PyTorch is a large download) ...", flush=True)
    what = "." if modules == NEEDED else ".[test]"
    if run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *torch_words(), "--editable", what):
        raise SystemExit("The packages could not be installed; pip says why above. Is the internet there?")


def make_venv() -> None:
    """Make .venv, or make it whole: a Python without ensurepip (Debian's, before python3-venv is there) leaves one behind without pip."""
    if PYTHON.exists() and subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    print(f"Making {VENV.name} ...", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode:
        raise SystemExit("Python's venv could not be made. On Debian and Ubuntu, install python3-venv first.")


def has(modules: tuple[str, ...]) -> bool:
    """Whether .venv has all of them."""
    return run("-c", f"import importlib.util as u, sys; sys.exit(not all(u.find_spec(name) for name in {modules!r}))") == 0


def torch_words() -> list[str]:
    """What pip is told about PyTorch."""
    if os.environ.get("KF_TORCH"):
        return os.environ["KF_TORCH"].split()
    if platform.system() == "Linux" and is_reachable(CPU_BUILDS + "/torch/"):
        return [TORCH, "--extra-index-url", CPU_BUILDS]
    return [TORCH]


def is_reachable(address: str) -> bool:
    """Whether an address answers soon; pip alone would try for minutes."""
    try:
        with urllib.request.urlopen(address, timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


def run(*words: str) -> int:
    return subprocess.run([str(PYTHON), *words]).returncode


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
