"""Checks the files of a model folder before anything is loaded: of weights, only the headers are read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from sweeper.data.hub import how_to_fetch, is_hub_id
from sweeper.errors import ModelError
from sweeper.model.load import check_no_adapter, model_folder
from sweeper.task import ModelSource

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
"""The dtypes of weights that can be trained, as safetensors names them."""

_LFS = b"version https://git-lfs"


class Header(NamedTuple):
    """A tensor in a weights file: its shape, and its dtype as safetensors names it."""

    shape: tuple[int, ...]
    dtype: str


def check_model(source: ModelSource) -> dict[str, Header]:
    """Check a model's files, and return the headers of its weights; a hub model is downloaded first.

    Raises:
        ModelError: see `model_folder`; an adapter, no configuration, quantised weights, or weights files
            that are pickled, missing, damaged, or Git LFS pointers.
    """
    folder = model_folder(source)
    hub = is_hub_id(source.path)
    where = f"{source.path} ({folder})" if hub else source.path
    again = f"; if the cache is incomplete, {how_to_fetch()}" if hub else ""
    check_no_adapter(source)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{where}: no config.json, so this is not a model folder{again}",
            code="model.not_found",
            path=source.path,
        )
    texts = [path for path in folder.iterdir() if path.suffix in (".json", ".jinja", ".model")]
    _check_not_pointers(source, texts)
    _check_not_quantized(source, _read_object(folder / "config.json"))
    if not any(folder.glob("*.safetensors")):
        others = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise ModelError(
            f"{where}: no *.safetensors weights (found {others}); pickled weights are not loaded: "
            "choose a model with safetensors weights, or save it with "
            f"`save_pretrained(..., safe_serialization=True)`{again}",
            code="model.unsafe_weights",
            path=source.path,
        )
    listed = _listed_weights(folder)
    files = sorted(set(listed.values()))
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        raise ModelError(
            f"{where}: {len(absent)} weights files are missing, for example {absent[0]}; copy "
            f"the complete model{again}",
            code="model.incomplete",
            path=source.path,
            files=absent,
        )
    _check_not_pointers(source, [folder / name for name in files])
    return _headers(source, folder, listed)


def _check_not_pointers(source: ModelSource, files: Sequence[Path]) -> None:
    for path in sorted(files):
        with path.open("rb") as file:
            start = file.read(len(_LFS))
        if start == _LFS:
            raise ModelError(
                f"{source.path}: {path.name} is a Git LFS pointer, not the file itself; run `git lfs pull` "
                "in the folder, or use the hub id of the model",
                code="model.incomplete",
                path=source.path,
                files=[path.name],
            )


def _check_not_quantized(source: ModelSource, config: dict[str, Any]) -> None:
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for key in ("quantization_config", "compression_config"):
        found = next((part[key] for part in parts if part.get(key)), None)
        if found is not None:
            method = found.get("quant_method") if isinstance(found, dict) else found
            _refuse_quantized(source, f"config.json has `{key}` ({method})")


def _refuse_quantized(source: ModelSource, found: str) -> None:
    raise ModelError(
        f"{source.path}: {found}, so these weights are quantised and cannot be fine-tuned here; use the "
        "model that they were quantised from, in bf16 or fp32",
        code="model.quantized",
        path=source.path,
    )


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: not valid JSON: {error}; copy the complete model",
            code="model.unreadable",
            path=path,
        ) from None
    if not isinstance(found, dict):
        raise ModelError(
            f"{path}: a JSON object is expected, but found {type(found).__name__}; copy the complete model",
            code="model.unreadable",
            path=path,
        )
    return found


def _listed_weights(folder: Path) -> dict[str, str]:
    """Weight -> file, by the index of a sharded model; a single file stands under the name ''.

    As in transformers, a single file takes precedence over an index.
    """
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return {"": WEIGHTS}
    found = _read_object(folder / INDEX).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise ModelError(
            f"{folder / INDEX}: not a valid index of weights files: no `weight_map` from weights to files; "
            "copy the complete model",
            code="model.unreadable",
            path=folder / INDEX,
        )
    return found


def _headers(source: ModelSource, folder: Path, listed: dict[str, str]) -> dict[str, Header]:
    found: dict[str, Header] = {}
    for name in sorted(set(listed.values())):
        headers = _header(folder / name)
        absent = [
            weight for weight, file in listed.items() if file == name and weight not in headers
        ]
        if absent and absent != [""]:
            raise ModelError(
                f"{source.path}: {INDEX} lists {len(absent)} weights that {name} does not have, for "
                f"example {absent[0]}; copy the complete model",
                code="model.incomplete",
                path=source.path,
                weights=absent,
            )
        found |= headers
    for weight, header in found.items():
        if weight.endswith("weight") and header.dtype not in FLOATS:
            _refuse_quantized(source, f"the weight `{weight}` is of type {header.dtype}")
    return found


def _header(path: Path) -> dict[str, Header]:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return {
                name: Header(tuple(part.get_shape()), str(part.get_dtype()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path}: not a complete safetensors file ({path.stat().st_size:,} bytes): {error}; copy it "
            "again",
            code="model.incomplete",
            path=path,
            files=[path.name],
        ) from None
