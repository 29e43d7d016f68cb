"""Where a ComfyUI is, and the way into it. Without one, tests that need it skip with one loud line, or fail under KF_REQUIRE_HOST=1."""

import importlib
import os
import sys
from pathlib import Path

import pytest

from .places import PACK, found_host  # noqa: F401  for whoever asks here


def host_folder() -> Path:
    found = found_host()
    if found is None:
        refuse("NO COMFYUI FOUND: set COMFYUI_PATH to its folder to test against a real host")
    return found


def enter_host(*needed: str) -> Path:
    """Make the host importable in this process, on the CPU, and import what is needed. Its `nodes` must be found before this pack's."""
    place = host_folder()
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
    argv, sys.argv = sys.argv, ["pytest", "--cpu"]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        for module in needed:
            importlib.import_module(module)
    except ImportError as problem:
        refuse(f"COMFYUI AT {place} CANNOT BE IMPORTED ({problem}): install its requirements to test against a real host")
    finally:
        sys.argv = argv
    return place


def pack_folder(name: str) -> Path:
    """Another pack that a test needs: among the host's own, or in a folder `packs` beside the host. Else the test skips, loudly."""
    host = host_folder()
    found = [place / name for place in (host / "custom_nodes", host.parent / "packs") if (place / name / "__init__.py").exists()]
    if not found:
        pytest.skip(f"{name.upper()} NOT FOUND: clone it into {host.parent / 'packs'} to test together with it")
    return found[0]


def refuse(reason: str):
    if os.environ.get("KF_REQUIRE_HOST") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
