"""The pack as the Registry hands it out: checked and packed by comfy-cli, unpacked and run; its requirements change nothing."""

import asyncio
import importlib.metadata
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import talking
from .place import PACK

COMFY = Path(sys.executable).with_name("comfy")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The files that git knows, as they are now, in a repository of their own."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PACK, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"{PACK} IS NO GIT CHECKOUT: clone the repository to test how it is packed")
    folder = tmp_path_factory.mktemp("packing") / "knot-forcing"
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACK / name, folder / name)
    for words in (("init", "-q"), ("add", "-A")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def packed(checkout) -> Path:
    assert "Created zip file" in comfy(checkout, "pack")
    return checkout / "node.zip"


def comfy(folder: Path, word: str) -> str:
    if not COMFY.exists():
        pytest.skip("COMFY-CLI NOT FOUND: pip install comfy-cli to test how the pack is packed")
    ran = subprocess.run([COMFY, "--skip-prompt", "node", word], cwd=folder, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_the_registry_finds_nothing_to_complain_of(checkout):
    assert "All validation checks passed" in comfy(checkout, "validate")


def test_training_and_tests_are_not_in_the_packed_node(packed):
    names = zipfile.ZipFile(packed).namelist()
    assert not [name for name in names if name.startswith(("tests/", "kf_core/training/", ".ci/"))]
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "kf_core/assets/kf-tiny.safetensors"} <= set(names)
    assert [name for name in names if name.startswith("web/docs/")] and [name for name in names if name.startswith("locales/")]


def test_the_unpacked_node_has_all_that_it_needs(host, packed, tmp_path):
    import nodes

    folder = tmp_path / "knot-forcing"
    zipfile.ZipFile(packed).extractall(folder)
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    try:
        assert asyncio.run(nodes.load_custom_node(str(folder)))
        assert nodes.NODE_CLASS_MAPPINGS["KnotForcingDecode"] is not before["KnotForcingDecode"]
        host.fresh()
        ran = host.run(talking(prefix="packed", load={"model_name": "kf-tiny (bundled)", "vae_name": "kf-tiny (bundled)"}))
        assert ran.succeeded, ran.error
        assert len(ran.outputs["decode"][1]) == 32
    finally:
        nodes.NODE_CLASS_MAPPINGS.update(before)
        host.fresh()
    assert not list(folder.glob("**/training")), "nothing was taken from elsewhere"


def test_installing_the_requirements_changes_nothing_that_is_installed():
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", "-r", str(PACK / "requirements.txt")]
    ran = subprocess.run([*command, "--disable-pip-version-check"], capture_output=True, text=True, timeout=300)
    if ran.returncode:
        pytest.skip(f"PIP CANNOT ANSWER HERE: {(ran.stderr.splitlines() or ['no word why'])[-1]}")
    wanted = [item["metadata"] for item in json.loads(ran.stdout)["install"]]
    there = {dist.metadata["Name"].lower() for dist in importlib.metadata.distributions()}
    assert not [f"{what['name']} {what['version']}" for what in wanted if what["name"].lower() in there]
