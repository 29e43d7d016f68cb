"""Where things are computed is the host's business: no device is named in what a user runs, and none is assumed."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("nodes", "kf_core") for path in sorted(ROOT.glob(f"{folder}/**/*.py")) if "training" not in path.parts]
KINDS = ("cuda", "mps", "xpu", "hip", "npu")  # "cpu" is always there


def is_device(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.split(":")[0] in KINDS


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_sent_to_a_device_by_name(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            assert not any(is_device(value) for value in given), f"{path.name}:{node.lineno} names a device"
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            assert called not in KINDS, f"{path.name}:{node.lineno} calls .{called}()"
        if isinstance(node, ast.arguments):
            assert not any(is_device(value) for value in (*node.defaults, *node.kw_defaults)), f"{path.name}: a device by default"
