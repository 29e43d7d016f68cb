"""What the host says of the nodes is what tests without a host believe. KF_WRITE_SNAPSHOT=1 writes it anew."""

import datetime
import json
import os

from ..nodes.test_explained import ENGLISH, SNAPSHOT, english_of
from .place import PACK


def test_the_snapshot_is_what_this_host_says(host):
    import comfyui_version
    import nodes

    mine = {id: node for id, node in nodes.NODE_CLASS_MAPPINGS.items() if id.startswith("KnotForcing")}
    said = json.loads(json.dumps({id: node.GET_NODE_INFO_V1() for id, node in mine.items()}))
    for info in said.values():
        info.pop("python_module", None)  # the name of the folder
    for name, count in (("model_name", 1), ("vae_name", 2)):
        options = said["KnotForcingLoadModel"]["input"]["required"][name][1]["options"]
        assert all("(bundled)" in option for option in options[:count])
        options[count:] = []  # this machine's files
    said["KnotForcingLoadModel"]["input"]["optional"]["lora_name"][1]["options"] = ["none"]
    said["KnotForcingVace"]["input"]["required"]["module_name"][1]["options"] = []
    if os.environ.get("KF_WRITE_SNAPSHOT") == "1":
        facts = {"comfyui": comfyui_version.__version__, "date": datetime.date.today().isoformat(), "nodes": said}
        SNAPSHOT.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        ENGLISH.write_text(json.dumps(english_of(said), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8"))["nodes"] == said


def test_the_registry_reads_who_we_are(host):
    from comfy_config import config_parser

    config = config_parser.extract_node_configuration(str(PACK))
    assert (config.project.name, config.tool_comfy.display_name) == ("knot-forcing", "Knot Forcing")
    assert config.tool_comfy.publisher_id and config.tool_comfy.web is None  # WEB_DIRECTORY says it, and twice is twice
    listed = [line for line in (PACK / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert config.project.dependencies == listed
