"""Every node is explained in English and Chinese, without a host: against what a real one said of the nodes (`object_info.json`)."""

import json
import re
from pathlib import Path

import pytest

from ..wrong import listed

ROOT = Path(__file__).parents[2]
SNAPSHOT = Path(__file__).with_name("object_info.json")
ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"  # written with the snapshot


@pytest.fixture(scope="module")
def nodes() -> dict:
    return json.loads(SNAPSHOT.read_text(encoding="utf-8"))["nodes"]


def inputs_of(info: dict) -> dict[str, list]:
    return {name: field for kind in ("required", "optional") for name, field in info["input"].get(kind, {}).items()}


def test_every_input_and_output_says_what_it_does(nodes):
    for id, info in nodes.items():
        assert info["description"], id
        for name, (_, *options) in inputs_of(info).items():
            assert options and options[0].get("tooltip"), f"{id}: {name}"
        assert all(info["output_tooltips"]), id


def english_of(nodes: dict) -> dict:
    """The schema's own words in the shape of a locale: what a translator starts from."""

    def inputs(info):
        return {name: {"name": name, "tooltip": field[1]["tooltip"]} for name, field in inputs_of(info).items()}

    def outputs(info):
        return {
            str(index): {"name": name, "tooltip": tooltip}
            for index, (name, tooltip) in enumerate(zip(info["output_name"], info["output_tooltips"], strict=True))
        }

    return {
        id: {"display_name": info["display_name"], "description": info["description"], "inputs": inputs(info), "outputs": outputs(info)}
        for id, info in nodes.items()
    }


def test_english_is_the_schemas_own_words(nodes):
    assert json.loads(ENGLISH.read_text(encoding="utf-8")) == english_of(nodes)


def test_chinese_names_every_input_and_output_and_nothing_else(nodes):
    chinese = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert chinese.keys() == nodes.keys()
    for id, info in nodes.items():
        said = chinese[id]
        assert set(said["inputs"]) == set(inputs_of(info)), id
        assert set(said["outputs"]) == {str(index) for index in range(len(info["output"]))}, id
        for part in (said, *said["inputs"].values(), *said["outputs"].values()):
            assert all(text.strip() for text in part.values() if isinstance(text, str)), id
        for part in (*said["inputs"].values(), *said["outputs"].values()):
            assert {"name", "tooltip"} <= part.keys(), id


def test_every_node_has_help_pages_that_name_its_inputs(nodes):
    wrong = []
    for id, info in nodes.items():
        for page in (f"{id}.md", f"{id}/zh.md"):
            path = ROOT / "web" / "docs" / page
            named = set(re.findall(r"`(\w+)`", path.read_text(encoding="utf-8"))) if path.exists() else set()
            wrong += [f"{page} does not name {name}" for name in inputs_of(info) if name not in named]
    assert not wrong, listed(wrong)
    assert len(list((ROOT / "web" / "docs").glob("*.md"))) == len(nodes)


def test_seed_stays_and_index_counts_up(nodes):
    assert inputs_of(nodes["KnotForcingSampler"])["seed"][1]["control_after_generate"] == "fixed"
    assert inputs_of(nodes["KnotForcingNextSegment"])["index"][1]["control_after_generate"] == "increment"


def test_strengths_go_from_0_to_2(nodes):
    for id, info in nodes.items():
        for name, (_, *options) in inputs_of(info).items():
            if name in ("strength", "motion"):
                assert (options[0]["min"], options[0]["default"], options[0]["max"]) == (0, 1, 2), id
