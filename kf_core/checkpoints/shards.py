"""Which files a path stands for: one, or all shards of a model that was saved in several.

    model-00001-of-00003.safetensors, model-00002-of-00003.safetensors, ..., model.safetensors.index.json

Any shard, the index, or the folder that holds one index stands for all of them. Source: transformers' and diffusers' sharded files.
"""

import json
import re
from pathlib import Path

from ..errors import KnotForcingError

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.[A-Za-z]+)$")
INDEX = ".index.json"
LARGEST_INDEX = 50_000_000  # bytes
MOST_SHARDS = 1000


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that hold the model `path` names, in order. Raises KnotForcingError when one of them is missing."""
    if path.is_dir():
        found = sorted(path.glob(f"*{INDEX}"))
        if len(found) != 1:
            raise KnotForcingError(f"{path} is a folder. Give the file of weights in it.")
        path = found[0]
    if path.name.endswith(INDEX):
        return _present(path, _listed(path))
    if (shard := SHARD.match(path.name)) is None:
        return (path,)
    count = int(shard["count"])
    if not 1 <= int(shard["number"]) <= count <= MOST_SHARDS:
        return (path,)
    return _present(path, [f"{shard['stem']}-{i:05}-of-{count:05}{shard['suffix']}" for i in range(1, count + 1)])


def _listed(index: Path) -> list[str]:
    """The files that an index names; they lie beside it and nowhere else."""
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise ValueError("it is too large")
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except FileNotFoundError as problem:
        raise KnotForcingError(f"The checkpoint {index} does not exist. Check its name and folder.") from problem
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as problem:
        raise KnotForcingError(
            f"{index.name} is no index of a model in several files ({str(problem)[:100]}). Download it again."
        ) from problem
    if not names or len(names) > MOST_SHARDS or any(Path(name).name != name or "\\" in name for name in names):
        raise KnotForcingError(f"{index.name} names no files, or files outside its folder. Download it again.")
    return names


def _present(path: Path, names: list[str]) -> tuple[Path, ...]:
    files = [path.with_name(name) for name in names]
    missing = [file.name for file in files if not file.exists()]
    if missing and path.exists():
        raise KnotForcingError(
            f"{path.name} is one of {len(files)} files of a model, and {', '.join(missing[:4])} "
            f"{'is' if len(missing) == 1 else 'are'} not beside it. Download all of them into one folder."
        )
    return tuple(files)
