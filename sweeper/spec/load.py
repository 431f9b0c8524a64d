"""Reading a sweep file: YAML in, every mistake reported at once."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from sweeper.errors import SpecError
from sweeper.metrics import SAFETY_METRICS, UTILITY_METRICS, is_harness, is_utility
from sweeper.spec.blocks import blocks_in, fields_of
from sweeper.spec.document import MAX_BYTES, read_yaml
from sweeper.spec.models import SPEC_VERSION, SweepSpec
from sweeper.spec.results import ImportedSpec
from sweeper.spec.space import ADAPTER_AXES, DATA_AXES
from sweeper.task import ADAMW, ComputeSettings
from sweeper.task.fields import UNKNOWN_KEY, Placement, annotations_of, metadata

SHOWN = 200
"""Characters of a value that an error message shows."""


def shipped_specs() -> dict[str, Path]:
    """The sweep files that come with the package, by name."""
    packaged = Path(str(resources.files("sweeper"))) / "search_spaces"
    folder = packaged if packaged.is_dir() else packaged.parents[1] / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_spec(name: str) -> Path:
    """The sweep file at a path, or the shipped one of this name.

    Raises:
        SpecError: neither exists.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_specs()
    if name in shipped:
        return shipped[name]
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise SpecError(
            name, ("no such file; the name of a shipped sweep has no folder and no ending",)
        )
    near = difflib.get_close_matches(name, shipped, n=1)
    known = f"did you mean `{near[0]}`?" if near else f"shipped: {', '.join(shipped) or 'none'}"
    raise SpecError(name, (f"no such file, and no shipped sweep of this name ({known})",))


def load_spec(name: str | Path, overrides: Iterable[str] = ()) -> SweepSpec:
    """Read a sweep file (a path or a shipped name) and apply `key.path=value` overrides.

    Relative data and model paths that exist beside the sweep file are made absolute; others are kept as
    they are, so a sweep may be started from the folder its paths are relative to.

    Raises:
        SpecError: with all problems of the file at once.
    """
    path = find_spec(str(name))
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), (f"cannot be read: {error}",)) from None
    return parse_spec(text, source=str(path), overrides=overrides, base=path.parent)


def parse_spec(
    text: str, *, source: str = "spec", overrides: Iterable[str] = (), base: Path | None = None
) -> SweepSpec:
    """Read a sweep from YAML text; see `load_spec`."""
    try:
        raw = read_yaml(text)
    except ValueError as error:
        raise SpecError(source, (f"not valid YAML: {error}",)) from None
    if not isinstance(raw, dict):
        raise SpecError(source, (f"a mapping of blocks is expected, but got {_shown(raw)}",))
    if raw.get("version") != SPEC_VERSION or isinstance(raw["version"], bool):
        raise SpecError(
            source,
            (
                f"version: found {_shown(raw.get('version'))}, this sweeper reads version {SPEC_VERSION}",
            ),
        )
    problems = [problem for item in overrides if (problem := _override(raw, item))]
    if problems:
        raise SpecError("--set", tuple(problems))
    if base is not None:
        _anchor(raw, base)
    try:
        spec = SweepSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(source, tuple(_problems(error))) from None
    laws = tuple(_broken_laws(spec))
    if laws:
        raise SpecError(source, laws)
    return spec


def parse_results_spec(text: str, *, source: str = "spec") -> SweepSpec | ImportedSpec:
    """Read the spec.yaml of a run folder, which is that of a sweep or of an import.

    Raises:
        SpecError: see `load_spec`.
    """
    try:
        raw = read_yaml(text)
    except ValueError:
        raw = None
    if not isinstance(raw, dict) or "imported" not in raw:
        return parse_spec(text, source=source)
    try:
        return ImportedSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(source, tuple(_problems(error))) from None


def _override(raw: dict[str, Any], item: str) -> str | None:
    """Apply one `key.path=value`; the value is YAML. Returns the problem, if any."""
    key, separator, value = item.partition("=")
    if not separator or not key:
        return f"`{item}` is not of the form key=value"
    *parents, last = key.split(".")
    place: Any = raw
    for name in parents:
        place = place.setdefault(name, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            return f"`{key}`: `{name}` is not a block"
    try:
        place[last] = read_yaml(value)
    except ValueError:
        return f"`{key}`: `{value}` is not valid YAML"
    return None


def _anchor(raw: dict[str, Any], base: Path) -> None:
    """Make paths that exist relative to the sweep file absolute."""
    data, evaluation = raw.get("data"), raw.get("evaluation")
    blocks: list[Any] = [raw.get("model"), raw.get("search")]
    blocks += (
        [data.get(name) for name in ("train", "heldout", "safety")]
        if isinstance(data, dict)
        else []
    )
    if isinstance(evaluation, dict):
        blocks.append(evaluation.get("lm_eval"))
        for name in ("harmful", "harmless"):
            suites = evaluation.get(name)
            blocks += suites if isinstance(suites, list) else [suites]
    for block in blocks:
        for key in ("path", "include_path", "warm_start"):
            if isinstance(block, dict) and isinstance(block.get(key), str) and block[key]:
                path = Path(block[key])
                if not path.is_absolute() and (base / path).exists() and not path.exists():
                    block[key] = str((base / path).resolve())


def _broken_laws(spec: SweepSpec) -> Iterable[str]:
    """The rules that involve several blocks."""
    names: list[str] = [item.metric for item in spec.objectives]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"objectives: {name} is given twice"
    for seed in sorted({seed for seed in spec.seeds if spec.seeds.count(seed) > 1}):
        yield f"seeds: {seed} is given twice"
    if not any(is_utility(name) for name in names):
        yield f"objectives: one utility metric is needed ({', '.join(UTILITY_METRICS)}), got {names}"
    if not any(name in SAFETY_METRICS for name in names):
        yield f"objectives: one safety metric is needed ({', '.join(SAFETY_METRICS)}), got {names}"
    for name in names:
        if name in UTILITY_METRICS and name not in spec.evaluation.utility_metrics:
            yield f"objectives: {name} is not among evaluation.utility_metrics, so it is not measured"
        if is_harness(name) and spec.evaluation.lm_eval is None:
            yield f"objectives: {name} needs evaluation.lm_eval, with its task among `tasks`"
    wanted = {*names, *(item.metric for item in spec.constraints)}
    if "over_refusal_rate" in wanted and not spec.evaluation.harmless:
        yield "over_refusal_rate needs evaluation.harmless, a suite of harmless prompts"
    if spec.search.stop.on and not any(c.metric == "unsafe_rate" for c in spec.constraints):
        yield (
            "search.stop: its rules stop what breaks a limit of unsafe_rate, and no constraint sets one; "
            "add one, or leave search.stop out"
        )
    extractor = spec.evaluation.answer_extractor
    if extractor != "none" and "exact_match" not in spec.evaluation.utility_metrics:
        yield (
            f"evaluation.answer_extractor: {extractor} is for exact_match, which is not among "
            "evaluation.utility_metrics"
        )
    if spec.rows_per_epoch is not None and spec.space.num_epochs is None:
        yield "rows_per_epoch belongs to space.num_epochs, which is not given; leave it out"
    yield from _broken_references(spec)
    yield from _broken_space(spec)


def _broken_references(spec: SweepSpec) -> Iterable[str]:
    known = list(type(spec.space).model_fields)
    names = [item.name for item in spec.references]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"references: {name} is given twice"
    given = {name for item in spec.references for point in item.points for name in point.params}
    for name in sorted(given - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean `{near[0]}`?)" if near else f"; known: {', '.join(known)}"
        yield f"references: params must be dimensions of the space, but got {name}{hint}"


def _broken_space(spec: SweepSpec) -> Iterable[str]:
    if spec.search.method == "grid":
        for name in type(spec.space).model_fields:
            axis = getattr(spec.space, name)
            if axis is not None and axis.values is None and axis.num is None:
                yield f"space.{name}: a grid needs `num` points of a range, or `values`"
    share, dora_axis = (getattr(spec.space, name) for name in ("safety_share", "use_dora"))
    if spec.data.safety is None and share is not None and share.at(1.0) > 0:
        yield "space.safety_share: needs `data.safety`, the rows to mix in"
    if share is not None and len(share.values or "..") > 1 and spec.space.num_epochs is not None:
        yield "space.num_epochs: an epoch has other rows at each safety_share; use max_steps"
    dora = spec.tuning.use_dora or (dora_axis is not None and True in dora_axis.values)
    if spec.compute.processes > 1 and (dora or spec.compute.torch_compile):
        named = "tuning.use_dora" if dora else "compute.torch_compile"
        yield f"{named}: not on weights spread over GPUs; set it to false, or gpus_per_trial to 1"
    yield from _broken_quantization(spec)
    if spec.tuning.method == "full":
        for name in ("use_dora", "use_rslora"):
            if getattr(spec.tuning, name):
                yield f"tuning.{name}: tuning.method is `full`, which has no adapter"
        for name in ADAPTER_AXES:
            if getattr(spec.space, name) is not None:
                yield f"space.{name}: tuning.method is `full`, which has no adapter"


def _broken_quantization(spec: SweepSpec) -> Iterable[str]:
    """Settings that need bitsandbytes, where it does not have them."""
    if not spec.tuning.quantized:
        if spec.evaluation.base_weights != "4bit":
            yield (
                f"evaluation.base_weights: tuning.method is `{spec.tuning.method}`, whose weights are not "
                "in 4 bits; leave it out, or use `qlora`"
            )
    elif spec.compute.processes > 1:
        yield (
            f"compute.gpus_per_trial: {spec.compute.processes} GPUs would have to share weights in 4 bits, "
            "which cannot be spread; set it to 1, or use `tuning.method: lora`"
        )
    if not spec.tuning.has_adapter and spec.compute.processes > 1 and spec.optimizers != (ADAMW,):
        yield (
            f"space.optim: 8-bit moments of weights that {spec.compute.processes} GPUs share are not "
            f"supported; use {ADAMW}, or set compute.gpus_per_trial to 1"
        )


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def _problems(error: ValidationError) -> Iterable[str]:
    """One line for each mistake: where, what was found, what is allowed."""
    places = [item["loc"] for item in error.errors()]
    for item in error.errors():
        inside = [
            loc
            for loc in places
            if len(loc) > len(item["loc"]) and loc[: len(item["loc"])] == item["loc"]
        ]
        if item["type"] == "too_short" and inside:
            continue  # The members themselves are invalid, and each of them is reported.
        if item["type"] == "literal_error" and isinstance(item["input"], dict):
            continue  # A block where a word is allowed as well: what is wrong inside is reported.
        place = [part for part in item["loc"] if not _is_noise(part)]
        where = ".".join(str(part) for part in place) or "spec"
        found = item["input"]
        shown = _shown(found) if not isinstance(found, dict | BaseModel) else "a block"
        message = item["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
        if item["type"] in _UNKNOWN or message == UNKNOWN_KEY:
            yield f"{where}: unknown key{_hint(item['loc'])}"
        elif item["type"] == "dataclass_type":
            yield f"{where}: found {shown}; a block is expected"
        elif item["type"] == "missing":
            yield f"{where}: missing"
        elif item["type"] == "value_error":
            yield f"{where}: {message}"
        elif item["type"] == "literal_error":
            yield f"{where}: found {shown}{_closest(found, item)}; {message}"
        else:
            yield f"{where}: found {shown}; {message}"


def _shown(found: Any) -> str:
    """A value as a message shows it; a long one is cut."""
    text = repr(found)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"


_BRANCHES = ("constrained-float", "float", "DecideSpec")


def _is_noise(part: int | str) -> bool:
    """Whether a part of a location names a pydantic union branch and not a place in the file."""
    return isinstance(part, str) and ("[" in part or part in _BRANCHES)


def _closest(found: Any, item: Mapping[str, Any]) -> str:
    allowed = re.findall(r"'([^']+)'", str(item.get("ctx", {}).get("expected", "")))
    near = difflib.get_close_matches(str(found), allowed, n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _hint(location: tuple[int | str, ...]) -> str:
    """The known key nearest to an unknown one, found by walking the models along the location."""
    block: Any = SweepSpec
    for part in location[:-1]:
        if isinstance(part, str):
            kind, _ = fields_of(block).get(part, (None, None))
            block = next(iter(blocks_in(kind)), None)
    known = list(fields_of(block))
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    allowed = f"; known here: {', '.join(known)}" if known else ""
    return f" (did you mean `{near[0]}`?)" if near else allowed


def dump_spec(spec: SweepSpec | ImportedSpec) -> str:
    """The spec as YAML that `parse_spec` reads back to an equal spec."""
    return yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True), sort_keys=False)


PLACEMENT = {
    name
    for name, kind in annotations_of(ComputeSettings).items()
    if metadata(kind, Placement) is not None
}
"""Keys of `compute` that do not affect results: they may change when a run continues."""


_APART = ("decide", "description", "name", "references")

_LATER = {
    "data": {"safety": None, "safety_share": 0.0, "control_tokens": "error"},
    "space": dict.fromkeys((*DATA_AXES, "lora_target_modules", "use_rslora", "use_dora")),
}
"""Keys by block that older runs do not have, with what they stand for there."""


def spec_hash(spec: SweepSpec) -> str:
    """A short hash of everything in a spec that can change a bit of a record.

    Names, descriptions, published figures and `decide` cannot, nor can the keys of `compute` in
    `PLACEMENT`, nor stop rules that are off. The number of GPUs of a trial is in it: sums over several
    GPUs round differently, and a checkpoint fits the same number only.
    """
    content = spec.model_dump(
        mode="json",
        exclude={"compute": PLACEMENT, **dict.fromkeys(_APART, True)},
    )
    content["compute"]["processes"] = spec.compute.processes
    for block, keys in _LATER.items():
        for name, default in keys.items():
            if content[block][name] == default:
                del content[block][name]
    if not spec.search.stop.on:
        del content["search"]["stop"]
    # Younger than the hashes of kept runs:
    if spec.optimizers == (ADAMW,):
        del content["space"]["optim"]
    if spec.evaluation.base_weights == "4bit":
        del content["evaluation"]["base_weights"]
    if spec.space.num_epochs is None:
        del content["space"]["num_epochs"]
    if spec.rows_per_epoch is None:
        del content["rows_per_epoch"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:16]
