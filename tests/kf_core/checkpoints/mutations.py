"""Small files of weights, damaged in every way we can think of, and what loading makes of them.

    python -m tests.kf_core.checkpoints.mutations 10000            # in this process, under a limit of memory
    python -m tests.kf_core.checkpoints.mutations 200 --fork       # each in a process forked for it
    python -m tests.kf_core.checkpoints.mutations 200 --fresh      # each in a Python started for it, limited before its first import

Loading either succeeds or ends in one sentence. Anything else (another exception, a crash, code that ran, too much memory) is printed
with the number that makes it again, and the exit status is 1. Needs a system with `resource` and `fork`.
"""

import argparse
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import save

from kf_core.checkpoints.known_models import self_forcing
from kf_core.models.card import CARD_KEY
from kf_core.models.wan import WanModel

from . import containers
from .outcome import SPARE, Outcome, limit_memory, outcome

FRESH_LIMIT = 2_000_000_000  # bytes of address space of a Python that loads PyTorch and one small file


class Burglar:
    """A pickle of this would make a file called `was_run`, were it ever run."""

    def __reduce__(self):
        return os.system, ("touch was_run",)


class Evaluated(Burglar):
    def __reduce__(self):
        return eval, ("open('was_run', 'w')",)


CARD = replace(self_forcing(), dim=128, heads=1, ffn_dim=16, layers=1, freq_dim=16, text=replace(self_forcing().text, width=8))


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: (torch.randn_like(t) / 8).bfloat16() for name, t in WanModel(CARD).state_dict().items()}


class Mutations:
    """Whole files, and what is done to them. The same number makes the same file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.weights = folder, weights()
        self.safe = save(self.weights, {CARD_KEY: CARD.to_json()})
        self.fp8 = containers.fp8({n: t.float() for n, t in self.weights.items()}, folder).read_bytes()
        self.pt = containers.framewise(self.weights, folder).read_bytes()
        torch.save(self.weights, folder / "old.pth", _use_new_zipfile_serialization=False)
        self.old = (folder / "old.pth").read_bytes()
        self.base, self.lora = (path.read_bytes() for path in containers.with_lora_beside(self.weights, folder))
        for file in folder.iterdir():
            file.unlink()

    def write(self, number: int) -> tuple[Path, dict]:
        """The damaged file of this number, and the words it is loaded with."""
        draw = random.Random(number)
        task = draw.choice(DEEDS)
        path = self.folder / draw.choice(("a.safetensors", "a.pt", "a.pth", "self_forcing_dmd.pt"))
        words = {"known_as": draw.choice(("self-forcing", "causal-forcing-framewise", None))}
        data = task(self, draw)
        if isinstance(data, tuple):
            data, second = data
            (self.folder / "lora.pt").write_bytes(second)
            words["lora"] = self.folder / "lora.pt"
        path.write_bytes(data)
        return path, words

    def any(self, draw: random.Random) -> bytes:
        return draw.choice((self.safe, self.fp8, self.pt, self.old))

    # ---- deeds ----

    def nothing(self, draw):
        return self.any(draw)

    def cut(self, draw):
        data = self.any(draw)
        return data[: draw.choice((draw.randrange(len(data)), draw.randrange(200), len(data) - draw.randrange(1, 100)))]

    def stretch(self, draw):
        return self.any(draw) + bytes(draw.choice((1, 8, 4096)))

    def flip_anywhere(self, draw):
        return _flipped(self.any(draw), draw, 0, None)

    def flip_near_the_ends(self, draw):
        data = self.any(draw)
        return _flipped(_flipped(data, draw, 0, 2000), draw, max(0, len(data) - 3000), None)

    def flip_in_the_header(self, draw):
        data = draw.choice((self.safe, self.fp8))
        return _flipped(data, draw, 0, 8 + struct.unpack("<Q", data[:8])[0])

    def edit_the_header(self, draw):
        data = draw.choice((self.safe, self.fp8))
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        names = [name for name in header if name != "__metadata__"]
        for _ in range(draw.randrange(1, 4)):
            name, huge = draw.choice(names), draw.choice((2**31, 2**40, 2**62, 2**64, 10**30, -1, 0))
            entry = header.get(name)
            entry = entry if isinstance(entry, dict) else {}
            match draw.randrange(9):
                case 0:
                    header[draw.choice(("", "x" * 5000, "model." + name, name + ".weight", name.upper(), "\0"))] = header.pop(name, entry)
                case 1:
                    header.pop(name, None)
                case 2:
                    entry["shape"] = draw.choice(([huge], [], [1] * 40, "abc", [huge, huge], [1.5], [None], entry.get("shape", [])[::-1]))
                case 3:
                    entry["dtype"] = draw.choice(("F64", "I64", "F4", "", None, 7, "F8_E5M2", "BOOL"))
                case 4:
                    entry["data_offsets"] = draw.choice(([0, huge], [huge, huge], [5], "ab", None, [0, 2], [-8, 0]))
                case 5:
                    header[name] = draw.choice(([], None, 3, "x", {}))
                case 6:
                    header[f"blocks.{draw.choice((huge, 1, 199, 201))}.self_attn.q.weight"] = dict(entry)
                case 7:
                    header["__metadata__"] = {CARD_KEY: _edited_card(draw, huge)}
                case 8:
                    header["__metadata__"] = draw.choice((None, [], {CARD_KEY: None}, {"a": {"b": 1}}, "x", {CARD_KEY: "[" * 5000}))
        text = json.dumps(header).encode()
        return struct.pack("<Q", draw.choice((len(text), len(text), len(text), 2**63, len(text) * 2))) + text + data[8 + length :]

    def spoil_numbers(self, draw):
        spoilt = dict(self.weights)
        name = draw.choice(list(spoilt))
        spoilt[name] = torch.full_like(spoilt[name], draw.choice((float("nan"), float("inf"), 3e38)))
        return save(spoilt) if draw.random() < 0.5 else _saved(draw, {"generator_ema": spoilt})

    def strange_tensors(self, draw):
        strange = dict(self.weights)
        for _ in range(draw.randrange(1, 4)):
            name = draw.choice(list(strange))
            strange[name] = draw.choice(
                (
                    torch.zeros(1).expand(2**40),
                    torch.zeros(1).expand(*self.weights[name].shape),
                    torch.empty(10, device="meta"),
                    torch.eye(3).to_sparse(),
                    torch.zeros(3, dtype=torch.complex64),
                    torch.zeros(self.weights[name].shape, dtype=torch.int8),
                    torch.zeros(()),
                    torch.zeros(0),
                    self.weights[name].T if self.weights[name].dim() == 2 else torch.zeros(2, 2),
                    torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8),
                )
            )
        return _saved(draw, draw.choice((strange, {"generator": strange}, {"model": strange, "generator_ema": self.weights})))

    def strange_dicts(self, draw):
        loop: dict = {"generator": {}}
        loop["generator"]["generator"] = loop
        deep: dict = dict(self.weights)
        for _ in range(draw.choice((3, 9, 200))):
            deep = {"model": deep}
        choices = (
            {"generator": {}, "generator_ema": 3},
            {3: self.weights["head.head.bias"], None: torch.zeros(2), **self.weights},
            {**self.weights, **{f"model.{name}": t for name, t in self.weights.items()}},
            list(self.weights.values()),
            loop,
            deep,
            {"generator": {**self.weights, "blocks.0.ffn.0.alpha": torch.zeros(2)}},
            {f"blocks.{10**i}.self_attn.q.weight": torch.zeros(1) for i in range(10)} | self.weights,
            "weights",
            None,
        )
        return _saved(draw, draw.choice(choices))

    def code(self, draw):
        villain = draw.choice((Burglar(), Evaluated()))
        held = draw.choice((villain, {"w": torch.ones(2), "x": villain}, {"generator": {**self.weights, "y": villain}}, [villain]))
        if draw.random() < 0.4:
            return pickle.dumps(held, protocol=draw.randrange(2, 6))
        return _saved(draw, held)

    def code_in_an_archive(self, draw):
        return _rewritten(self.pt, lambda pickled: pickle.dumps(Burglar()), draw)

    def flip_in_the_pickle(self, draw):
        return _rewritten(self.pt, lambda pickled: _flipped(pickled, draw, 0, None), draw)

    def cut_the_pickle(self, draw):
        return _rewritten(self.pt, lambda pickled: pickled[: draw.randrange(len(pickled))], draw)

    def compress(self, draw):
        return _rewritten(self.pt, lambda pickled: pickled, draw, zipfile.ZIP_DEFLATED)

    def damage_a_lora(self, draw):
        cut = self.lora[: draw.randrange(len(self.lora))]
        lora = draw.choice((_flipped(self.lora, draw, 0, None), cut, self.base, self.safe, self.lora))
        return self.base, lora


DEEDS = tuple(task for name, task in vars(Mutations).items() if callable(task) and name not in ("__init__", "write", "any"))


def _edited_card(draw: random.Random, huge: int) -> str:
    card = json.loads(CARD.to_json())
    place = draw.choice((card, card["rollout"], card["text"]))
    place[draw.choice(list(place))] = draw.choice((huge, "x", None, [], {}, -1, 0, 1.5, [[1, 2]], float("nan")))
    return json.dumps(card)


def _flipped(data: bytes, draw: random.Random, start: int, stop: int | None) -> bytes:
    changed = bytearray(data)
    stop = min(len(data), len(data) if stop is None else stop)
    for _ in range(draw.choice((1, 2, 8, 64))):
        if start < stop:
            changed[draw.randrange(start, stop)] = draw.randrange(256)
    return bytes(changed)


def _saved(draw: random.Random, held) -> bytes:
    with tempfile.TemporaryFile() as file:
        torch.save(held, file, _use_new_zipfile_serialization=draw.random() < 0.8)
        file.seek(0)
        return file.read()


def _rewritten(archive: bytes, change, draw: random.Random, compression: int = zipfile.ZIP_STORED) -> bytes:
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as target:
        file.write(archive)
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w", compression) as new:
            for name in old.namelist():
                data = old.read(name)
                new.writestr(name, change(data) if name.endswith("data.pkl") else data)
        target.seek(0)
        return target.read()


def forked(path: Path, words: dict) -> Outcome:
    """The outcome in a process that is forked for it."""
    child = os.fork()
    if child == 0:
        try:
            os._exit({"loaded": 10, "refused": 11}[outcome(path, words)])
        except BaseException as problem:  # noqa: BLE001  the parent reports it
            print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (10, 11):
        raise RuntimeError(f"the process ended with {status}")
    return {10: "loaded", 11: "refused"}[status]


def fresh(path: Path, words: dict) -> Outcome:
    """The outcome in a Python that is started for it, limited from its first instruction. It runs where its files are, as code would."""
    words = json.dumps({name: word if word is None else str(word) for name, word in words.items()})
    command = [sys.executable, "-W", "ignore", "-m", "tests.kf_core.checkpoints.outcome", str(path), words]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}

    def limit():
        return resource.setrlimit(resource.RLIMIT_AS, (FRESH_LIMIT, FRESH_LIMIT))

    ended = subprocess.run(command, cwd=path.parent, env=environment, preexec_fn=limit, capture_output=True, text=True, timeout=600)
    said = ended.stdout.strip()
    if ended.returncode or said not in get_args(Outcome):
        raise RuntimeError(f"the process ended with {ended.returncode}: {ended.stdout[-100:]} {ended.stderr.strip()[-300:]}")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--fork", action="store_const", dest="task", const=forked, default=outcome, help="a forked process for each")
    parser.add_argument("--fresh", action="store_const", dest="task", const=fresh, help="a newly started Python for each")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found, failures = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        mutations = Mutations(Path(folder))
        path, words = mutations.write(0)  # once before measuring, so that what loads late has loaded
        for warm in (save(mutations.weights), mutations.pt):
            path.write_bytes(warm)
            outcome(path, {"known_as": "self-forcing"})
        if chosen.task is not fresh:  # whose processes have a limit of their own
            limit_memory(SPARE)
        began = time.perf_counter()
        for number in range(chosen.first, chosen.first + chosen.count):
            path, words = mutations.write(number)
            try:
                found[chosen.task(path, words)] += 1
            except BaseException as problem:  # noqa: BLE001  all of them are findings
                failures.append(f"{number}: {type(problem).__name__}: {str(problem)[:400]}")
            if Path("was_run").exists():
                failures.append(f"{number}: its code was run")
                Path("was_run").unlink()
            for file in Path(folder).iterdir():
                file.unlink()
        os.chdir("/")
    seconds = time.perf_counter() - began
    print(f"{chosen.count} files: {dict(found)}, {len(failures)} findings, {seconds:.0f} s")
    print("\n".join(failures[:40]))
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
