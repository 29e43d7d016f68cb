"""What the host says of the nodes is what tests without a host believe. KF_WRITE_SNAPSHOT=1 writes it anew."""

import datetime
import json
import os

from ..nodes.test_explained import SNAPSHOT


def test_the_snapshot_is_what_this_host_says(host):
    import comfyui_version
    import nodes

    mine = {id: node for id, node in nodes.NODE_CLASS_MAPPINGS.items() if id.startswith("KnotForcing")}
    said = json.loads(json.dumps({id: node.GET_NODE_INFO_V1() for id, node in mine.items()}))
    for info in said.values():
        info.pop("python_module", None)  # the name of the folder
    for name in ("model_name", "vae_name"):
        said["KnotForcingLoadModel"]["input"]["required"][name][1]["options"] = ["kf-tiny (bundled)"]  # the rest is this machine's files
    if os.environ.get("KF_WRITE_SNAPSHOT") == "1":
        facts = {"comfyui": comfyui_version.__version__, "date": datetime.date.today().isoformat(), "nodes": said}
        SNAPSHOT.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8"))["nodes"] == said
