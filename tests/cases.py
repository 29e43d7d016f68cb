"""Small files of many makers, beside the repository (`../shared/cases`) or where `KF_CASES` says: each has a twin that its test makes."""

import os
import warnings
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("KF_CASES") or Path(__file__).parents[2] / "shared" / "cases")


def case(name: str) -> Path:
    """A file of the folder; without it the test is left out, and says so."""
    path = FOLDER / name
    if not path.is_file():
        warnings.warn(f"{path} is not there, so the test of it is left out; its twin runs", stacklevel=2)
        pytest.skip(f"{path} is not there")
    return path
