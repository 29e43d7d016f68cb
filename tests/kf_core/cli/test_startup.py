"""A film begins soon: what it does not use is not loaded, since importing takes longer than a model does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LARGE = {
    "diffusers", "hypothesis", "kornia", "librosa", "llvmlite", "matplotlib", "numba", "pandas", "scipy", "skimage", "sklearn", "sympy",
    "torch._dynamo", "torch._inductor.compile_fx", "torchvision", "transformers",
}  # fmt: skip


def loaded_by(words: list[str]) -> set[str]:
    """Names of all modules that a process holds after this command."""
    code = "import sys; from kf_core.cli.main import main; assert main(sys.argv[1:]) == 0; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


def test_a_plain_film_loads_no_large_library_that_it_does_not_use(files):
    loaded = loaded_by(files.words(checkpoint=None, duration=0.1, threads=1, quiet=True))
    assert {"torch", "numpy", "av"} <= loaded
    assert not loaded & LARGE


@pytest.mark.parametrize(
    "given, spins",
    [({}, "'1000'"), ({"GOMP_SPINCOUNT": "77"}, "'77'"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is what PyTorch brings on Linux")
def test_the_command_lines_threads_wait_briefly_unless_the_user_says_how(given, spins):
    """What the OpenMP runtime itself says that it was told, when PyTorch loads it."""
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = plain | given | {"OMP_DISPLAY_ENV": "VERBOSE"}
    words = [sys.executable, "-m", "kf_core", "animate", "--help"]
    said = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    told = re.search(r"GOMP_SPINCOUNT = (\S+)", said.stderr)
    assert said.returncode == 0
    if told is None:
        pytest.skip("this PyTorch's threads are not GNU OpenMP's")
    assert (told[1] == spins) if spins else (int(told[1].strip("'")) > 1_000_000)
