"""A file of weights is read as it is, and whatever else it may be is refused in one sentence, unrun."""

import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints.read import TensorFile, read_header
from kf_core.errors import KnotForcingError

WEIGHTS = {"a.weight": torch.arange(12.0).view(3, 4), "b": torch.ones(5, dtype=torch.bfloat16)}


@pytest.fixture
def safe(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors", metadata={"made": "here"})
    return tmp_path / "a.safetensors"


def read_all(path) -> dict[str, torch.Tensor]:
    file = TensorFile(path)
    return {name: file.read(name) for name in file.tensors}


def refused(path) -> str:
    """The sentence, which must be one and the same for looking and for loading."""
    sentences = []
    for read in (read_header, read_all):
        with pytest.raises(KnotForcingError) as problem:
            read(path)
        sentences.append(str(problem.value))
    assert sentences[0] == sentences[1] and "\n" not in sentences[0]
    return sentences[0]


def test_safetensors_come_back_as_they_were(safe):
    tensors = read_all(safe)
    assert all(torch.equal(tensors[name], WEIGHTS[name]) for name in WEIGHTS)
    facts = read_header(safe)
    assert facts.kind == "safetensors" and facts.shapes == {"a.weight": (3, 4), "b": (5,)} and facts.values == 17
    assert facts.tensors["b"].dtype == "BF16" and facts.metadata == {"made": "here"}


def test_pytorch_files_come_back_with_their_dicts(tmp_path):
    torch.save({"generator": WEIGHTS, "step": 7}, tmp_path / "a.pt")
    assert torch.equal(read_all(tmp_path / "a.pt")["generator.a.weight"], WEIGHTS["a.weight"])
    assert read_header(tmp_path / "a.pt").shapes == {"generator.a.weight": (3, 4), "generator.b": (5,)}


def test_old_pytorch_files_are_read_too(tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_all(tmp_path / "a.pth")["b"], WEIGHTS["b"])


def test_a_file_is_told_by_its_content_not_its_name(safe, tmp_path):
    os.rename(safe, tmp_path / "a.pt")
    assert read_header(tmp_path / "a.pt").kind == "safetensors"


def test_a_header_as_long_as_a_pickle_begins_is_a_header(tmp_path):
    for length in (0x80, 0x280, 0x380):
        header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + header + bytes(4))
        assert read_header(tmp_path / "a.safetensors").shapes == {"a": (1,)}


def test_equal_files_have_equal_fingerprints(safe, tmp_path):
    before = read_header(safe).fingerprint
    (tmp_path / "copy").write_bytes(safe.read_bytes())
    assert read_header(tmp_path / "copy").fingerprint == before
    save_file({**WEIGHTS, "b": WEIGHTS["b"] * 2}, safe, metadata={"made": "here"})
    assert read_header(safe).fingerprint != before


def test_a_header_that_claims_the_world_is_refused_at_once(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}" * 50)
    assert "its header claims 1,152,921,504,606,846,976 bytes and the file has 108" in refused(tmp_path / "a.safetensors")


@pytest.mark.parametrize("left", [0, 5, 40, -1])
def test_a_file_that_was_cut_off_is_refused(safe, left):
    safe.write_bytes(safe.read_bytes()[:left])
    assert any(word in refused(safe) for word in ("is empty", "only the beginning", "is cut off"))


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 16]},
        {"shape": [1], "data_offsets": [0, 4]},
        [],
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path, entry):
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert "makes no sense" in refused(tmp_path / "a.safetensors")


class Burglar:
    def __reduce__(self):
        return os.system, ("touch was_run",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("as_zip", [True, False])
def test_a_file_with_code_is_refused_and_never_run(tmp_path, monkeypatch, as_zip):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(2), "x": Burglar()}, path, _use_new_zipfile_serialization=as_zip)
    assert "holds program code" in refused(path) and not (tmp_path / "was_run").exists()
    path.write_bytes(pickle.dumps(Burglar()))
    refused(path)
    assert not (tmp_path / "was_run").exists()


def test_a_damaged_pytorch_file_is_refused(tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    for broken in (data[:300], data[:-30], b"\x80\x02garbage"):
        (tmp_path / "a.pt").write_bytes(broken)
        assert "damaged or cut off" in refused(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("holiday.txt", "sun")
    assert "damaged or cut off" in refused(tmp_path / "a.pt")


def test_something_else_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    for content, name in (
        (b"GGUF" + bytes(90), "a GGUF file"),
        (b"\x89PNG\r\n" + bytes(90), "a PNG"),
        (b"<!DOCTYPE html>" * 9, "a web page"),
    ):
        path.write_bytes(content)
        assert name in refused(path)
    assert "does not exist" in refused(tmp_path / "none.pt") and "is a folder" in refused(tmp_path)
    torch.save([1, 2], path)
    assert "no named tensors" in refused(path)
