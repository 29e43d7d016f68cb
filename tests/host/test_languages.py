"""Every node is explained in English and Chinese: help page, name, each input, each output; and nothing that is not there is explained."""

import json
import re

import pytest

from .place import PACK


@pytest.fixture(scope="module")
def schemas(host) -> dict:
    import nodes

    return {id: node.GET_SCHEMA() for id, node in nodes.NODE_CLASS_MAPPINGS.items() if id.startswith("KnotForcing")}


def test_chinese_names_every_input_and_output(schemas):
    chinese = json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert chinese.keys() == schemas.keys()
    for id, schema in schemas.items():
        said = chinese[id]
        assert list(said["inputs"]) and set(said["inputs"]) == {field.id for field in schema.inputs}, id
        assert set(said["outputs"]) == {str(index) for index in range(len(schema.outputs))}, id
        for part in (said, *said["inputs"].values(), *said["outputs"].values()):
            assert all(text.strip() for text in part.values() if isinstance(text, str)), id


@pytest.mark.parametrize("page", ["{id}.md", "{id}/zh.md"])
def test_every_node_has_a_help_page_that_names_its_inputs(schemas, page):
    for id, schema in schemas.items():
        text = (PACK / "web" / "docs" / page.format(id=id)).read_text(encoding="utf-8")
        named = set(re.findall(r"`(\w+)`", text))
        assert {field.id for field in schema.inputs} <= named, f"{id}: { ({field.id for field in schema.inputs} - named) }"
    assert len(list((PACK / "web" / "docs").glob("*.md"))) == len(schemas)
