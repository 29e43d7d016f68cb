"""The workflows that come with the pack fit the nodes, without a host: against what a real one said of them.

`nodes/object_info.json` is the pack's own nodes, `nodes/core_info.json` the host's that are used. See `host/author_workflows.py`.
"""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from .host.shipped import CORE, FRONTEND_ONLY, WORKFLOWS
from .wrong import listed

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "workflows"
SNAPSHOTS = [ROOT / "tests" / "nodes" / name for name in ("object_info.json", "core_info.json")]
MOST_BYTES = 60_000
HAS_A_WIDGET = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
IS_BYPASSED = 4


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


def test_a_thumbnail_is_a_small_frame_of_something():
    wrong = []
    for workflow in WORKFLOWS:
        path = FOLDER / f"{workflow.name}.jpg"
        with Image.open(path) as image:
            low, high = image.convert("L").getextrema()
            facts = {"bytes": path.stat().st_size, "format": image.format, "size": image.size, "contrast": high - low}
        if not (facts["bytes"] < MOST_BYTES and facts["format"] == "JPEG" and min(facts["size"]) >= 256 and facts["contrast"] > 100):
            wrong.append(f"{path.name}: {facts}")
    assert not wrong, listed(wrong)


def test_every_node_says_of_which_pack_and_version_it_is():
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M).group(1)
    wrong = []
    for workflow in WORKFLOWS:
        for node in graph(workflow)["nodes"]:
            said = node["properties"]["cnr_id"], node["properties"]["ver"]
            is_ours = node["type"].startswith("KnotForcing")
            is_right = said == ("knot-forcing", version) if is_ours else said[0] == CORE and re.fullmatch(r"\d+\.\d+\.\d+", said[1])
            if not is_right:
                wrong.append(f"{workflow.name}: {node['type']} says {said}")
    assert not wrong, listed(wrong)


def test_nodes_values_and_links_are_those_of_the_description():
    wrong = []
    for workflow in WORKFLOWS:
        made, described = real_nodes(workflow), workflow.nodes()
        types = [node["type"] for node in made.values()], [node.type for node in described.values()]
        if types[0] != types[1]:
            wrong.append(f"{workflow.name}: the nodes are {types[0]}, described are {types[1]}")
            continue
        ids = dict(zip(described, made, strict=True))
        links = {
            (source, made[source]["outputs"][slot]["name"], target, made[target]["inputs"][place]["name"])
            for _, source, slot, target, place, _ in graph(workflow)["links"]
        }
        wanted = set()
        for name, node in described.items():
            if (made[ids[name]]["mode"] == IS_BYPASSED) != node.is_bypassed:
                wrong.append(f"{workflow.name}: {name} is bypassed, or should be")
            for input, source in node.inputs.items():
                before, output = source.split(".")
                wanted.add((ids[before], output, ids[name], input))
        wrong += [f"{workflow.name}: the link {link} is only in one of file and description" for link in sorted(links ^ wanted)]
    assert not wrong, listed(wrong)


def test_every_value_is_one_that_its_widget_takes(known):
    wrong = []
    for workflow in WORKFLOWS:
        for node in real_nodes(workflow).values():
            widgets, values = widgets_of(known[node["type"]]), node.get("widgets_values", [])
            if len(values) != len(widgets):
                wrong.append(f"{workflow.name}: {node['type']}: {values} for {[name for name, *_ in widgets]}")
                continue
            downloads = {model["name"] for model in node["properties"].get("models", [])}
            for (name, kind, options), value in zip(widgets, values, strict=True):
                if kind == "COMBO":
                    is_right = value in options["options"] or value in downloads
                elif kind in ("INT", "FLOAT"):
                    is_right = options["min"] <= value <= options["max"]
                else:
                    is_right = isinstance(value, bool if kind == "BOOLEAN" else str)
                if not is_right:
                    wrong.append(f"{workflow.name}: {node['type']}: {name} = {value!r}")
    assert not wrong, listed(wrong)


def test_every_link_fits_and_nothing_that_is_needed_is_left_open(known):
    wrong = []
    for workflow in WORKFLOWS:
        made = real_nodes(workflow)
        for _, source, slot, target, place, kind in graph(workflow)["links"]:
            taken = made[target]["inputs"][place]["name"]
            ends = known[made[source]["type"]]["output"][slot], inputs_of(known[made[target]["type"]])[taken][0]
            if ends != (kind, kind):
                wrong.append(f"{workflow.name}: a link of {kind} goes from {ends[0]} to {ends[1]} ({made[target]['type']}: {taken})")
        for node in made.values():
            info = known[node["type"]]
            wired = {input["name"] for input in node["inputs"] if input["link"] is not None}
            wants = set(info["input"].get("required", {})) - {name for name, *_ in widgets_of(info)}
            if not wants <= wired:
                wrong.append(f"{workflow.name}: {node['type']}: {sorted(wants - wired)} is left open")
    assert not wrong, listed(wrong)


def test_every_file_that_is_wanted_is_named_with_its_link():
    wrong = []
    for workflow in WORKFLOWS:
        note = next(node for node in graph(workflow)["nodes"] if node["type"] in FRONTEND_ONLY)["widgets_values"][0]
        for node in real_nodes(workflow).values():
            models = node["properties"].get("models", [])
            for model in models:
                is_link = model["url"].startswith("https://") and model["url"].endswith(model["name"])
                if not (is_link and model["url"] in note and f"models/{model['directory']}" in note):
                    wrong.append(f"{workflow.name}: {node['type']}: {model} is not a link that the note gives")
            if node["type"] == "UpscaleModelLoader" and not models:
                wrong.append(f"{workflow.name}: {node['type']} names no file")
    assert not wrong, listed(wrong)
