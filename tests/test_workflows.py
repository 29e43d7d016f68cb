"""The workflows that come with the pack fit the nodes, without a host: against what a real one said of them.

`nodes/object_info.json` is the pack's own nodes, `nodes/core_info.json` the host's that are used. See `host/author_workflows.py`.
"""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from .host.shipped import CORE, FRONTEND_ONLY, WORKFLOWS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "workflows"
SNAPSHOTS = [ROOT / "tests" / "nodes" / name for name in ("object_info.json", "core_info.json")]
MOST_BYTES = 60_000
HAS_A_WIDGET = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
IS_BYPASSED = 4

each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)


@pytest.fixture(scope="module")
def known() -> dict[str, dict]:
    return {id: info for file in SNAPSHOTS for id, info in json.loads(file.read_text(encoding="utf-8"))["nodes"].items()}


def graph(workflow) -> dict:
    return json.loads((FOLDER / f"{workflow.name}.json").read_text(encoding="utf-8"))


def real_nodes(workflow) -> dict[int, dict]:
    return {node["id"]: node for node in graph(workflow)["nodes"] if node["type"] not in FRONTEND_ONLY}


def inputs_of(info: dict) -> dict[str, list]:
    return {name: field for kind in ("required", "optional") for name, field in info["input"].get(kind, {}).items()}


def widgets_of(info: dict) -> list[tuple[str, str, dict]]:
    """Name, type and options of each widget, as they stand in `widgets_values`."""
    found = []
    for name, (kind, *options) in inputs_of(info).items():
        options = options[0] if options else {}
        if isinstance(kind, list):  # how the host writes the choices of its older nodes
            kind, options = "COMBO", options | {"options": kind}
        if kind in HAS_A_WIDGET and not options.get("forceInput"):
            found.append((name, kind, options))
            if options.get("control_after_generate"):
                found.append((f"after {name}", "COMBO", {"options": ["fixed", "increment", "decrement", "randomize"]}))
    return found


def test_every_description_is_a_file_with_a_thumbnail_and_nothing_else_is_there():
    wanted = {f"{workflow.name}{end}" for workflow in WORKFLOWS for end in (".json", ".jpg")}
    assert {path.name for path in FOLDER.iterdir()} == wanted


@each_workflow
def test_a_thumbnail_is_a_small_picture_of_something(workflow):
    path = FOLDER / f"{workflow.name}.jpg"
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as image:
        assert image.format == "JPEG" and min(image.size) >= 256
        low, high = image.convert("L").getextrema()
        assert high - low > 100, "it is not blank"


@each_workflow
def test_every_node_says_of_which_pack_and_version_it_is(workflow):
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M).group(1)
    for node in graph(workflow)["nodes"]:
        facts = node["properties"]
        if node["type"].startswith("KnotForcing"):
            assert (facts["cnr_id"], facts["ver"]) == ("knot-forcing", version), node["type"]
        else:
            assert facts["cnr_id"] == CORE and re.fullmatch(r"\d+\.\d+\.\d+", facts["ver"]), node["type"]


@each_workflow
def test_nodes_values_and_links_are_those_of_the_description(workflow):
    made, described = real_nodes(workflow), workflow.nodes()
    assert [node["type"] for node in made.values()] == [node.type for node in described.values()]
    ids = dict(zip(described, made, strict=True))
    links = {
        (source, made[source]["outputs"][slot]["name"], target, made[target]["inputs"][place]["name"])
        for _, source, slot, target, place, _ in graph(workflow)["links"]
    }
    wanted = set()
    for name, node in described.items():
        assert (made[ids[name]]["mode"] == IS_BYPASSED) == node.is_bypassed, name
        for input, source in node.inputs.items():
            before, output = source.split(".")
            wanted.add((ids[before], output, ids[name], input))
    assert links == wanted


@each_workflow
def test_every_value_is_one_that_its_widget_takes(workflow, known):
    for node in real_nodes(workflow).values():
        widgets, values = widgets_of(known[node["type"]]), node.get("widgets_values", [])
        assert len(values) == len(widgets), f"{node['type']}: {values} for {[name for name, *_ in widgets]}"
        downloads = {model["name"] for model in node["properties"].get("models", [])}
        for (name, kind, options), value in zip(widgets, values, strict=True):
            where = f"{node['type']}: {name} = {value!r}"
            if kind == "COMBO":
                assert value in options["options"] or value in downloads, where
            elif kind in ("INT", "FLOAT"):
                assert options["min"] <= value <= options["max"], where
            else:
                assert isinstance(value, bool if kind == "BOOLEAN" else str), where


@each_workflow
def test_every_link_fits_and_nothing_that_is_needed_is_left_open(workflow, known):
    made = real_nodes(workflow)
    for _, source, slot, target, place, kind in graph(workflow)["links"]:
        taken = made[target]["inputs"][place]["name"]
        assert known[made[source]["type"]]["output"][slot] == kind
        assert inputs_of(known[made[target]["type"]])[taken][0] == kind
    for node in made.values():
        info = known[node["type"]]
        wired = {input["name"] for input in node["inputs"] if input["link"] is not None}
        wants = set(info["input"].get("required", {})) - {name for name, *_ in widgets_of(info)}
        assert wants <= wired, f"{node['type']}: {wants - wired}"


@each_workflow
def test_every_file_that_is_wanted_is_named_with_its_link(workflow):
    note = next(node for node in graph(workflow)["nodes"] if node["type"] in FRONTEND_ONLY)["widgets_values"][0]
    for node in real_nodes(workflow).values():
        for model in node["properties"].get("models", []):
            assert model["url"].startswith("https://") and model["url"].endswith(model["name"])
            assert model["url"] in note and f"models/{model['directory']}" in note
        if node["type"] == "UpscaleModelLoader":
            assert node["properties"]["models"]
