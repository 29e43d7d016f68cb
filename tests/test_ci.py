"""What `.ci/run` promises: every step is run, the last lines say how each ended, and a ComfyUI that is not there is said loudly."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from .host.places import found_host, python_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def ci():
    spec = importlib.util.spec_from_file_location("ci_run", ROOT / ".ci" / "run.py")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path


@pytest.fixture
def host(tmp_path, monkeypatch) -> Path:
    """An empty folder that looks like a ComfyUI, where COMFYUI_PATH says."""
    folder = tmp_path / "somewhere" / "ComfyUI"
    (folder / "comfy_api" / "latest").mkdir(parents=True)
    (folder / "execution.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(folder))
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    return folder


def test_every_file_that_it_names_is_there(ci):
    missing = [name for name in (*ci.NUMERICAL, *ci.TRAINING, *ci.LOADING) if not (ROOT / name).exists()]
    assert not missing, missing


@pytest.mark.parametrize(
    "place", ["ComfyUI/venv/bin/python", "ComfyUI/.venv/Scripts/python.exe", "venv/bin/python", "python_embeded/python.exe"]
)
def test_the_hosts_own_python_is_found_in_its_folder_or_beside_it(host, place):
    assert found_host() == host and python_of(host) is None
    python = host.parent / place
    python.parent.mkdir(parents=True)
    python.touch()
    assert python_of(host) == python


def test_the_hosts_python_may_be_named(host, monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PYTHON", str(tmp_path / "python"))
    assert python_of(host) == tmp_path / "python"


def test_without_a_host_or_what_its_tests_need_it_says_so_and_passes(ci, host, tmp_path, monkeypatch, capfd):
    passed, said = ci.host_tests("slow")
    assert passed and said.startswith("NO PYTHON OF COMFYUI'S OWN FOUND")
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    monkeypatch.setattr(ci, "NEEDED_BY_HOST_TESTS", ("pytest", "no_such_module"))
    assert ci.host_tests("slow") == (True, f"{sys.executable} LACKS NO_SUCH_MODULE: install them there, or the nodes are not tested")
    monkeypatch.setattr(ci, "found_host", lambda: None)
    passed, said = ci.host_tests("slow")
    assert passed and "NO COMFYUI FOUND" in said and said in capfd.readouterr().out


def test_a_step_that_fails_fails_the_whole_and_the_others_are_run(ci, monkeypatch, capfd):
    monkeypatch.setattr(ci, "own", lambda *words, **_: (words[0] != "test" or "slow" in words, " ".join(words)))
    monkeypatch.setattr(ci, "as_an_old_processor", lambda: (False, "numbers"))
    monkeypatch.setattr(ci, "host_tests", lambda marked: (True, marked))
    assert ci.main() == 1
    report = capfd.readouterr().out.split("in all\n")[1].splitlines()
    assert [line.split()[0] for line in report] == ["passed", "FAILED", "FAILED", "FAILED", "passed", "passed", "passed"]


@pytest.mark.parametrize("capability, runs", [("AVX2", False), ("DEFAULT", False), ("AVX512", True), ("", True)])
def test_a_processor_that_has_no_more_than_avx2_is_not_asked_twice(ci, monkeypatch, tmp_path, capability, runs):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {capability}\n")
    python.chmod(0o755)
    monkeypatch.setattr(ci.develop, "PYTHON", python)
    asked = []
    monkeypatch.setattr(ci, "own", lambda *words, **environment: (bool(asked.append(environment)) or True, "run"))
    passed, said = ci.as_an_old_processor()
    assert passed and (said == "run") == runs and asked == ([ci.OLD_PROCESSOR] if runs else [])


def test_pytests_own_count_is_what_is_said_of_a_step(ci, tmp_path):
    (tmp_path / "test_one.py").write_text("def test_one(): assert True\ndef test_two(): assert False\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    passed, said = ci.run(words, {"PYTEST_ADDOPTS": "", "PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    assert not passed and said.startswith("1 failed, 1 passed")
