"""`develop.py` makes what it needs, also where it was begun before and did not come to its end."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def develop(tmp_path, monkeypatch):
    """The file as a module whose .venv is elsewhere."""
    spec = importlib.util.spec_from_file_location("develop", Path(__file__).parents[1] / "develop.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / ".venv"
    monkeypatch.setattr(module, "PYTHON", venv / module.PYTHON.relative_to(module.VENV))
    monkeypatch.setattr(module, "VENV", venv)
    return module


def test_a_venv_that_was_left_without_pip_is_made_whole_and_keeps_what_is_in_it(develop, capfd):
    pytest.importorskip("ensurepip")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(develop.VENV)], check=True)
    assert develop.has(("json",)) and not develop.has(("json", "pip"))
    (develop.VENV / "kept").touch()
    develop.make_venv()
    assert develop.has(("pip",)) and (develop.VENV / "kept").exists() and "Making .venv" in capfd.readouterr().out
    develop.make_venv()
    assert "Making" not in capfd.readouterr().out


def test_a_python_that_can_make_none_is_told_what_to_install(develop, monkeypatch):
    monkeypatch.setattr(develop, "VENV", develop.VENV.with_name("a file"))
    develop.VENV.touch()
    with pytest.raises(SystemExit, match="install python3-venv"):
        develop.make_venv()
