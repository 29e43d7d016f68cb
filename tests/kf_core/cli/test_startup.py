"""A film begins soon: what it does not use is not loaded, since importing takes longer than a model does."""

import subprocess
import sys
from pathlib import Path

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
