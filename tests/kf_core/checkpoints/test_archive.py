"""An archive of PyTorch tells what it holds without PyTorch; one that is out of the ordinary is left to PyTorch."""

import os
import zipfile
from collections import OrderedDict

import pytest
import torch

from kf_core.checkpoints.archive import ordinary
from kf_core.checkpoints.header import TensorFacts
from kf_core.checkpoints.read import TensorFile
from kf_core.checkpoints.tensors import facts_of, pytorch_tensors
from kf_core.errors import KnotForcingError

ROW = torch.arange(24.0)
OF_EACH_TYPE = {str(dtype): torch.zeros(3, 2, dtype=dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64)}
OF_EACH_TYPE |= {str(dtype): torch.zeros(5, dtype=dtype) for dtype in (torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)}
FILES = {
    "flat": OF_EACH_TYPE,
    "nested": {
        "generator": {"a": ROW},
        "generator_ema": OrderedDict(a=ROW.half()),
        "optimizer": {"state": {0: {"exp": ROW}}, "lr": [1e-4]},
    },
    "a module's": torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict(),
    "parameters": dict(torch.nn.Linear(3, 4).named_parameters()),
    "views": {"all": ROW, "turned": ROW.view(4, 6).T, "part": ROW[5:9], "one": ROW[3], "none": ROW[:0], "wide": ROW[:1].expand(6)},
    "beside": {"a": ROW, "step": 2**40, "name": "x", "ok": True, "no": None, "betas": (0.9, 0.99), "four": (1, 2, 3, 4), "t": (1,)},
    "many": {f"blocks.{index}": ROW[index % 9] for index in range(700)},
}


@pytest.mark.parametrize("name", FILES)
def test_it_says_what_pytorch_loads(name, tmp_path):
    torch.save(FILES[name], tmp_path / "a.pt")
    found = ordinary(tmp_path / "a.pt")
    assert found == [(entry, name, facts_of(tensor)) for entry, name, tensor in pytorch_tensors(tmp_path / "a.pt")]


class Burglar:
    def __reduce__(self):
        return os.system, ("touch was_run",)


@pytest.mark.parametrize(
    "held",
    [
        {"a": ROW, "b": Burglar()},
        {"a": torch.zeros(2, dtype=torch.float8_e4m3fn)},
        {"a": torch.zeros(2, dtype=torch.complex64)},
        {"a": torch.eye(2).to_sparse()},
        {"a": ROW, "size": torch.Size([1])},
        [ROW],
        {},
    ],
    ids=["code", "fp8", "complex", "sparse", "size", "list", "empty"],
)
def test_what_is_out_of_the_ordinary_is_left_to_pytorch(held, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(held, "a.pt")
    assert ordinary(tmp_path / "a.pt") is None and not (tmp_path / "was_run").exists()


def test_so_is_what_does_not_add_up(tmp_path):
    whole, path = tmp_path / "whole.pt", tmp_path / "a.pt"
    torch.save({"w": ROW}, whole)
    assert ordinary(whole) == [("", "w", TensorFacts("F32", (24,)))]
    records = {info.filename: zipfile.ZipFile(whole).read(info) for info in zipfile.ZipFile(whole).infolist()}

    def seen(changed: dict, compression: int = zipfile.ZIP_STORED):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in (records | changed).items():
                archive.writestr(name, data)
        return ordinary(path)

    pickled = records["whole/data.pkl"]
    assert seen({}) is not None
    assert seen({}, zipfile.ZIP_DEFLATED) is None
    assert seen({"whole/byteorder": b"big"}) is None
    assert seen({"whole/data/0": bytes(95)}) is None, "a storage shorter than its values"
    assert seen({"whole/data.pkl": pickled[:-1]}) is None, "no end"
    assert seen({"whole/data.pkl": pickled.replace(b"K\x18\x85", b"K\x19\x85")}) is None, "a tensor longer than its storage"
    assert seen({"other/data.pkl": pickled}) is None, "two tables of contents"


def test_a_file_that_changes_while_it_is_open_is_refused(tmp_path):
    torch.save({"w": ROW}, tmp_path / "a.pt")
    opened = TensorFile(tmp_path / "a.pt")
    assert torch.equal(TensorFile(tmp_path / "a.pt").read("w"), ROW)
    torch.save({"w": ROW[:3]}, tmp_path / "a.pt")
    with pytest.raises(KnotForcingError, match="a.pt does not hold what it announces"):
        opened.read("w")


@pytest.mark.parametrize("protocol", [True, False])
def test_dicts_that_hold_themselves_many_times_are_refused_at_once(protocol, tmp_path):
    loop: dict = {"w": ROW}
    loop |= {f"again{index}": loop for index in range(40)}
    torch.save(loop, tmp_path / "a.pt", _use_new_zipfile_serialization=protocol)
    with pytest.raises(KnotForcingError, match="dicts lie . deep inside dicts"):
        TensorFile(tmp_path / "a.pt")
