"""The host's folders: which files can be chosen, where they lie, and where what is made belongs."""

import os
from collections.abc import Iterable
from pathlib import Path

import folder_paths

from ...kf_core.errors import KnotForcingError
from ...kf_core.outputs import refuse_inputs
from ...kf_core.session.kept_streams import KeptStreams, limit_from

KEY = "knot_forcing"
BUNDLED, BUNDLED_SMALL = "kf-tiny (bundled)", "kf-tiny, small decoder (bundled)"
NO_VACE = "none found"
FOLDERS = ("diffusion_models", KEY)
LIMIT = "KNOT_FORCING_KEPT_GB"  # the environment variable that says how much may be kept; an hour at 832x480 is 8 GB of latents


def model_files() -> list[str]:
    """Generators that can be chosen: the bundled one, then models/diffusion_models and models/knot_forcing."""
    _know_folder()
    return [BUNDLED, *dict.fromkeys(name for folder in FOLDERS for name in folder_paths.get_filename_list(folder))]


def lora_files() -> list[str]:
    return folder_paths.get_filename_list("loras")


def vae_files() -> list[str]:
    """VAEs that can be chosen: the bundled one with either decoder, models/vae, tiny decoders for Wan 2.1 in models/vae_approx."""
    tiny = filter(_is_tiny_file, folder_paths.get_filename_list("vae_approx"))
    return [BUNDLED, BUNDLED_SMALL, *dict.fromkeys([*folder_paths.get_filename_list("vae"), *tiny])]


def tiny_decoder_file() -> str | None:
    """A tiny decoder for Wan 2.1 that can be loaded, if one is there."""
    return next(filter(_is_tiny_file, vae_files()), None)


def vace_files() -> list[str]:
    """Files that may hold a VACE module: those that have it in their name."""
    found = [name for folder in _vace_folders() for name in folder_paths.get_filename_list(folder)]
    return list(dict.fromkeys(name for name in found if "vace" in name.lower())) or [NO_VACE]


def model_path(name: str) -> Path:
    _know_folder()
    if (found := _found(name, FOLDERS)) is None:
        raise KnotForcingError(f"The model {name} is not in models/diffusion_models or models/knot_forcing any more. Choose another one.")
    return found


def lora_path(name: str) -> Path:
    return Path(folder_paths.get_full_path_or_raise("loras", name))


def vae_path(name: str) -> Path:
    return _found(name, ("vae",)) or Path(folder_paths.get_full_path_or_raise("vae_approx", name))


def vace_path(name: str) -> Path:
    if name == NO_VACE:
        raise KnotForcingError(
            "No VACE module was found. Put Wan2_1-VACE_module_1_3B_bf16.safetensors in models/diffusion_models and choose it here."
        )
    if (found := _found(name, _vace_folders())) is None:
        raise KnotForcingError(f"The VACE module {name} is not there any more. Choose another one.")
    return found


def output_file(prefix: str, name: str, width: int, height: int) -> tuple[Path, str]:
    """Where a video called `prefix` and `name` belongs: its path and its subfolder of the host's output folder."""
    try:
        folder, stem, _, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory(), width, height)
    except Exception as problem:  # the host raises a bare Exception for a place outside its output folder
        raise KnotForcingError(
            f"The video cannot be put at '{prefix}'. Give a name, or folder/name, inside ComfyUI's output folder."
        ) from problem
    return Path(folder) / f"{stem}_{name}.mp4", subfolder


def kept_streams() -> KeptStreams:
    """Where latents and states are kept, so that a stream outlives its run and the server."""
    return KeptStreams(Path(folder_paths.get_output_directory()) / KEY / ".streams", limit_from(os.environ.get(LIMIT)))


def refuse_read(path: Path, prompt: dict | None) -> None:
    """Raises KnotForcingError where another node of the workflow reads the file that would be written."""
    read = {}
    for number, node in (prompt or {}).items():
        for name, value in node["inputs"].items():
            if isinstance(value, str) and value:
                read[f"`{name}` of {node['class_type']} (node {number})"] = [Path(value), *_annotated(value)]
    refuse_inputs({"`filename_prefix`": path}, read)


def _annotated(name: str) -> list[Path]:
    """The file that the host's loaders mean by a name such as `take.mp4 [output]`."""
    try:
        return [Path(folder_paths.get_annotated_filepath(name))]
    except ValueError:  # a place outside its folders
        return []


def _found(name: str, folders: Iterable[str]) -> Path | None:
    found = next(filter(None, (folder_paths.get_full_path(folder, name) for folder in folders)), None)
    return None if found is None else Path(found)


def _vace_folders() -> list[str]:
    return [folder for folder in (*FOLDERS, "model_patches") if folder in folder_paths.folder_names_and_paths]


def _is_tiny_file(name: str) -> bool:
    return "taew2_1" in name.lower()


def _know_folder() -> None:
    if KEY not in folder_paths.folder_names_and_paths:
        places = [str(Path(folder_paths.models_dir) / KEY)]
        folder_paths.folder_names_and_paths[KEY] = (places, set(folder_paths.supported_pt_extensions))
