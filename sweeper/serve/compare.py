"""Two runs side by side: differences of the sweep files, what is not comparable, and the results."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sweeper.analysis import Candidate
from sweeper.report.figures import FrontInfo, front_info
from sweeper.report.measures import measure
from sweeper.serve.state import RunSnapshot
from sweeper.spec import SweepSpec
from sweeper.task import as_written, configuration_name

_IGNORED = ("name", "description")
"""Keys of a sweep file whose differences do not matter."""


class Side(NamedTuple):
    """One of the two runs: its front as a table, best utility first, and as a figure's info."""

    name: str
    utility: str
    columns: tuple[str, ...]
    front: tuple[tuple[str, ...], ...]
    info: FrontInfo


class RunComparison(NamedTuple):
    """Two runs. `recommended` and `differences` hold rows of a name and the texts of both."""

    a: Side
    b: Side
    warnings: tuple[str, ...]
    recommended: tuple[tuple[str, str, str], ...]
    differences: tuple[tuple[str, str, str], ...]


def compare(names: tuple[str, str], a: RunSnapshot, b: RunSnapshot) -> RunComparison:
    """Compare two runs, finished or not."""
    return RunComparison(
        a=_side(names[0], a),
        b=_side(names[1], b),
        warnings=tuple(_warnings(a, b)),
        recommended=tuple(
            (row, one, other)
            for (row, one), (_, other) in zip(_recommended(a), _recommended(b), strict=True)
        ),
        differences=tuple(spec_differences(a.spec, b.spec)),
    )


def _side(name: str, found: RunSnapshot) -> Side:
    metrics = [item.metric for item in found.spec.objectives]
    return Side(
        name=name,
        utility=found.spec.utility.metric,
        columns=("configuration", "hyperparameters that vary", *metrics),
        front=tuple(
            (
                item.config_id,
                configuration_name(item.config, found.names),
                *(_measured(item, metric) for metric in metrics),
            )
            for item in found.front.members
        ),
        info=front_info(found.front, found.spec, found.recommendation.chosen),
    )


def _measured(candidate: Candidate, metric: str) -> str:
    found = measure(candidate, metric)
    return f"{found.text} ({found.detail})" if found.detail else found.text


def _recommended(found: RunSnapshot) -> list[tuple[str, str]]:
    """Rows about the recommended configuration, the same for every run."""
    chosen = found.recommendation.chosen
    metrics = ("unsafe_rate", "over_refusal_rate", "rouge_l", "heldout_loss", "exact_match")
    rows = [
        ("records", str(len(found.records))),
        ("configuration", "none" if chosen is None else chosen.config_id),
        ("why", found.recommendation.reason),
        (
            "hyperparameters that vary",
            "" if chosen is None else configuration_name(chosen.config, found.names),
        ),
    ]
    return rows + [(name, "" if chosen is None else _measured(chosen, name)) for name in metrics]


def spec_differences(a: SweepSpec, b: SweepSpec) -> list[tuple[str, str, str]]:
    """The keys in which two sweep files differ, with both values; empty where a file has none."""
    one, other = (dict(_flat(spec.model_dump(mode="json", exclude_none=True))) for spec in (a, b))
    keys = [*one, *(key for key in other if key not in one)]
    return [
        (key, _text(one.get(key)), _text(other.get(key)))
        for key in keys
        if one.get(key) != other.get(key) and key not in _IGNORED
    ]


def _flat(raw: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The leaves of nested mappings with dotted keys; lists are leaves."""
    if not isinstance(raw, Mapping) or not raw:
        yield prefix, raw
        return
    for key, value in raw.items():
        yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _warnings(a: RunSnapshot, b: RunSnapshot) -> Iterable[str]:
    """What is not comparable between the two runs, and why."""
    one, other = _measured_with(a), _measured_with(b)
    if one is None or other is None:
        yield (
            "One of the runs has no record of the data and prompts it used, so it cannot be checked "
            "whether numbers are comparable."
        )
        return
    for subject, what in (
        ("harmful prompts", "unsafe rates are not comparable"),
        ("harmless prompts", "over-refusal rates are not comparable"),
        ("keyword lists", "rates by a list are comparable only where both used the same list"),
        ("decoding", "responses were decoded with other settings: no rate is comparable"),
        ("held-out rows", "utility metrics are not comparable"),
        ("dialogue of what is scored", "neither rates nor utility are comparable"),
        ("benchmark tasks", "metrics of lm-evaluation-harness are not comparable"),
        ("model", "a difference need not come from hyperparameters"),
        ("training rows", "a difference need not come from hyperparameters"),
        ("versions", "small differences may come from the libraries"),
        ("seeds", "means are over other seeds"),
    ):
        if one[subject] != other[subject]:
            yield f"Different {subject}: {what}."
    for name, found in (("first", a), ("second", b)):
        if not any(record.status == "complete" for record in found.records):
            yield f"The {name} run has no complete record, so there is nothing to compare."
    for key in ("objectives", "constraints"):
        if getattr(a.spec, key) != getattr(b.spec, key):
            yield f"Different {key}: the recommendations answer different questions."


def _measured_with(found: RunSnapshot) -> dict[str, Any] | None:
    """The data and software behind the numbers of a run, by subject; None if no record has them."""
    origin = next((r.provenance for r in found.records if r.provenance.get("data_sha256")), None)
    if origin is None:
        return None
    hashes = origin["data_sha256"]
    spec = found.spec
    data = spec.data

    def prompts(kind: str) -> Any:
        sources = spec.evaluation.harmful if kind == "harmful" else spec.evaluation.harmless
        contents = sorted(str(value) for key, value in hashes.items() if key.startswith(f"{kind}/"))
        return contents, [as_written(item) | {"path": None} for item in sources]

    decoding = origin.get("decoding", {})
    versions = origin.get("versions", {})
    heldout = data.heldout and as_written(data.heldout) | {"path": None}
    return {
        "harmful prompts": prompts("harmful"),
        "harmless prompts": prompts("harmless"),
        "keyword lists": origin.get("keyword_lists"),
        "decoding": [decoding.get(name) for name in ("strategy", "max_new_tokens")],
        "held-out rows": (
            hashes.get("heldout") or hashes.get("train"),
            heldout,
            data.heldout_rows,
            data.max_length,
            data.overlong_prompts,
            decoding.get("answer_extractor"),
        ),
        "dialogue of what is scored": data.template.test,
        "benchmark tasks": (origin.get("lm_eval"), hashes.get("lm_eval")),
        "model": (hashes.get("model"), origin.get("model", {}).get("dtype")),
        "training rows": (
            hashes.get("train"),
            as_written(data.train) | {"path": None},
            data.filter_safety_rows,
            data.control_tokens,
            hashes.get("safety"),
            data.safety_share,
            data.template.train,
        ),
        "versions": [versions.get(name) for name in ("torch", "transformers", "peft")],
        "seeds": spec.seeds,
    }
