"""Where things are computed is the host's business: no device is named in what a user runs, and none is assumed."""

import ast
from collections.abc import Iterator
from pathlib import Path

from ..wrong import listed

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("nodes", "kf_core") for path in sorted(ROOT.glob(f"{folder}/**/*.py")) if "training" not in path.parts]
KINDS = ("cuda", "mps", "xpu", "hip", "npu")  # "cpu" is always there


def is_device(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.split(":")[0] in KINDS


def test_nothing_is_sent_to_a_device_by_name():
    wrong = [f"{path.relative_to(ROOT).as_posix()}:{what}" for path in FILES for what in named_devices(path.read_text(encoding="utf-8"))]
    assert len(FILES) > 100 and not wrong, listed(wrong)


def named_devices(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if any(is_device(value) for value in given):
                yield f"{node.lineno} names a device"
            if isinstance(node.func, ast.Attribute) and node.func.attr in KINDS:
                yield f"{node.lineno} calls .{node.func.attr}()"
        if isinstance(node, ast.arguments) and any(is_device(value) for value in (*node.defaults, *node.kw_defaults)):
            line = next(value.lineno for value in (*node.defaults, *node.kw_defaults) if is_device(value))
            yield f"{line} has a device by default"


def test_a_named_device_is_seen():
    source = 'x.to("cuda:0")\nx.cuda()\ndef f(a, device="mps"): ...\ndef g(*, device="xpu"): ...\nf(device="cpu")\n'
    assert len(list(named_devices(source))) == 4
