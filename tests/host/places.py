"""Where a ComfyUI may be on this machine, and its own Python. Standard library only: `.ci/run` asks before anything is installed."""

import os
from pathlib import Path

PACK = Path(__file__).parents[2]
PYTHONS = ("bin/python", "Scripts/python.exe")


def places() -> list[Path]:
    """Where a ComfyUI may be, the likeliest first."""
    named = [Path(os.environ["COMFYUI_PATH"])] if os.environ.get("COMFYUI_PATH") else []
    around = [PACK.parents[1]] if PACK.parent.name == "custom_nodes" else []
    home = Path.home()
    usual = [home / "comfy" / "ComfyUI", home / "Documents" / "comfy" / "ComfyUI", home / "ComfyUI", PACK.parent / "ComfyUI"]
    return [*named, *around, *usual]


def found_host() -> Path | None:
    """The first place that holds one."""
    return next((place for place in places() if (place / "comfy_api" / "latest").is_dir() and (place / "execution.py").exists()), None)


def python_of(host: Path) -> Path | None:
    """What COMFYUI_PYTHON says, a virtual environment in the host's folder or beside it, or the one that comes with it on Windows."""
    if os.environ.get("COMFYUI_PYTHON"):
        return Path(os.environ["COMFYUI_PYTHON"])
    inside = [place / name / end for place in (host, host.parent) for name in ("venv", ".venv") for end in PYTHONS]
    embedded = [place / "python_embeded" / "python.exe" for place in (host, host.parent)]  # spelt so there
    return next((place for place in (*inside, *embedded) if place.exists()), None)
