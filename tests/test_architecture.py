"""Imports point one way, and do nothing. This test is the architecture."""

import ast
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .wrong import listed

ROOT = Path(__file__).parents[1]

# Each layer may import the layers before it, and files of its own.
LAYERS = [
    {"timeline", "errors", "content_id", "memory", "device"},
    {"precision", "schedule", "settings", "types", "writing"},
    {"lock", "outputs"},
    {"models", "vae", "media"},
    {"encoders", "checkpoints"},
    {"conditioning"},
    {"sampling"},
    {"session"},
    {"planning"},
    {"metrics", "training"},
    {"cli"},
    {"__main__"},
]
FILES, NODES = (sorted(ROOT.glob(f"{folder}/**/*.py")) for folder in ("kf_core", "nodes"))


def test_there_are_files_to_look_at():
    assert len(FILES) > 100 and len(NODES) > 10


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def layer_of(part: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if part in names)


def imports(path: Path) -> set[str]:
    """Names that a file imports: `kf_core.models.card`, `torch`, ..."""
    package = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module or "")))
            found |= {f"{module}.{alias.name}" for alias in node.names} if node.module is None else {module}
    return found


def test_imports_point_one_way():
    wrong = []
    for path in FILES:
        part = path.relative_to(ROOT / "kf_core").with_suffix("").parts[0]
        if part == "__init__":
            continue
        own = layer_of(part)
        for name in sorted(imports(path)):
            other = name.split(".")[1] if name.startswith("kf_core.") else "__version__"
            if other not in (part, "__version__") and layer_of(other) >= own:
                wrong.append(f"{place(path)} ({part}) imports {name}")
    assert not wrong, listed(wrong)


def test_the_core_knows_no_host_no_laboratory_and_no_training():
    wrong = []
    for path in FILES:
        trains = path.is_relative_to(ROOT / "kf_core" / "training")
        for name in sorted(imports(path)):
            is_host = name.startswith(("comfy", "nodes", "server", "folder_paths"))
            if is_host or name.split(".")[0] == "lab" or (not trains and name.startswith("kf_core.training")):
                wrong.append(f"{place(path)} imports {name}")
    assert not wrong, listed(wrong)


def test_one_folder_knows_the_host_and_none_knows_training_or_the_laboratory():
    wrong = []
    for path in NODES:
        for name in sorted(imports(path)):
            is_host = name.split(".")[0] in ("comfy", "comfy_execution", "folder_paths", "server", "execution")
            is_outside = name.startswith("kf_core.training") or name.split(".")[0] == "lab"
            if is_outside or (is_host and path.parent.name != "host"):
                wrong.append(f"{place(path)} imports {name}")
    assert not wrong, listed(wrong)


def test_importing_does_nothing(tmp_path):
    """No file, no folder, no heavy library that only one command needs."""
    code = (
        "import sys; import kf_core.session.stream; heavy = {'transformers', 'librosa', 'diffusers', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "file, said",
    [
        ("kf-tiny.safetensors", "fits         all"),
        ("kf-tiny-vae.safetensors", "a Wan VAE 16 wide"),
        ("kf-tiny-vae.pt", "a Wan VAE 16 wide"),
    ],
)
def test_a_file_is_inspected_without_pytorch(file, said, tmp_path):
    """Loading PyTorch takes longer than the answer."""
    path = ROOT / "kf_core" / "assets" / file
    if file.endswith(".pt"):
        weights, path = load_file(path.with_suffix(".safetensors")), tmp_path / file
        torch.save(weights, path)
    code = (
        f"import sys; from kf_core.cli.main import main; status = main(['inspect', {str(path)!r}]); "
        "heavy = {'torch', 'numpy'} & set(sys.modules); assert not status and not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert said in result.stdout


# What the field has other words for: docs/architecture.md, "Names".
OLD_FILES = set(
    "hot_path hot_block recordings graphs alone beside marks stored known recognise film pieces spool worker fingerprint sending "
    "chance louder takes sitters on_the_way timbre disturb running_mean goals hearing laps course held hours first_and_last sitting "
    "exactness work live picture".split()
)
OLD_NAMES = set(
    "HotGenerator HotBlock HotCache HotMemory Room Film Pieces Spool Worker Beside InTurn Way deed is_beside name_for_recipe read_words "
    "led_by refuse_deaf refuse_misled refuse_unread refuse_hopeless num_pictures pictures picture emitted _standing _placed make_room "
    "withheld".split()
)


def test_old_words_stay_out():
    """The live session to come may be called live; the old preview may not."""
    wrong = [f"{place(path)} is an old name" for path in (*FILES, *NODES) if path.stem in OLD_FILES and path.parent.name != "cli"]
    for path in (*FILES, *NODES):
        with tokenize.open(path) as file:
            found = {token.string for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.NAME}
        wrong += [f"{place(path)} says {name}" for name in sorted(found & OLD_NAMES)]
    assert not wrong, listed(wrong)


def test_prose_stays_under_100_columns():
    """Tables, code and images aside."""
    wrong = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        is_code = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            is_code ^= line.lstrip().startswith("```")
            if len(line) > 100 and not is_code and not line.lstrip().startswith(("|", "![", "```")):
                wrong.append(f"{place(path)}:{number} has {len(line)} columns")
    assert not wrong, listed(wrong)


def test_every_file_opens_by_stating_its_idea():
    silent = [place(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not silent, listed(f"{name} has no docstring" for name in silent)
