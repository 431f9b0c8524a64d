"""The pages of the site that are made from the code, each as Markdown.

`PAGES` maps a page to the function that writes it. docs/hooks.py adds them when the site is built, so that
no generated page is kept in the repository and none can be out of date.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from markup import code, page, table
from measured import measurements, shipped_sweeps

import sweeper
from sweeper import errors, metrics
from sweeper.cli.commands import all_commands
from sweeper.cli.examples import EXAMPLES
from sweeper.data.formats import FORMATS
from sweeper.data.suites import PUBLISHED
from sweeper.estimate import GPUS
from sweeper.estimate.inputs import Machine, plan_estimate
from sweeper.keywords.lists import keyword_list_names, load_keyword_list
from sweeper.planning import make_plan
from sweeper.runs import results
from sweeper.runs.command_outputs import json_schemas
from sweeper.spec import load_spec
from sweeper.spec.reference import markdown as sweep_file

ROOT = Path(__file__).resolve().parents[1]

MEANINGS = {
    "heldout_loss": "mean negative log likelihood of the answer's tokens, in nats",
    "perplexity": "exp(`heldout_loss`)",
    "token_accuracy": "share of the answer's tokens that are the most likely one after the true ones",
    "rouge_l": "mean ROUGE-L F1 of greedy responses (package rouge-score, no stemming, any script)",
    "chrf": "mean sentence-level chrF of greedy responses (package sacrebleu, divided by 100)",
    "exact_match": "share of responses equal to the reference; see `evaluation.answer_extractor`",
    "unsafe_rate": "share of responses to harmful prompts that the first list does not call a refusal",
    "over_refusal_rate": "share of responses to harmless prompts that it does call a refusal",
}
"""A sentence for each metric of `sweeper.metrics.KINDS`."""

SOURCES = {
    "likelihood": "held-out tokens",
    "text": "responses to held-out prompts",
    "verdicts": "verdicts on responses to safety prompts",
}


# -- Command line ------------------------------------------------------------------------------------------


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group, as it is typed."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if value is None or value is False or callable(value) or value == ():
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _parameters(command: Any) -> str:
    rows = []
    for item in command.params:
        if item.name == "help":
            continue
        option = item.param_type_name == "option"
        shown = [*item.opts, *item.secondary_opts] if option else [item.name.upper()]
        rows.append(
            (", ".join(f"`{name}`" for name in shown), _default(item), (item.help or "").strip())
        )
    return table(("parameter", "default", "meaning"), rows)


def cli() -> str:
    """Every command with its parameters and examples."""
    parts = [
        "Errors that a user can correct are one message and exit code 2. Interrupted: exit code 130. "
        "Ended by its budget: 3."
    ]
    for path, command in sorted(commands(all_commands())):
        name = " ".join(path)
        parts.append(f"## sweeper {name}")
        parts.append(inspect.cleandoc(command.help or ""))
        if any(item.name != "help" for item in command.params):
            parts.append(_parameters(command))
        parts.append(code("\n".join(EXAMPLES[name])))
    return page("Command line", *parts)


# -- JSON and Python ---------------------------------------------------------------------------------------


def _type(schema: Mapping[str, Any]) -> str:
    """A type of a JSON schema in words."""
    words: str = schema.get("type", "any")
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2].removesuffix("Model")
        words = f"[{name}](#{name.lower()})"
    elif "anyOf" in schema:
        words = " or ".join(_type(part) for part in schema["anyOf"])
    elif "enum" in schema or "const" in schema:
        words = ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    elif "prefixItems" in schema:
        words = f"list of {len(schema['prefixItems'])} {_type(schema['prefixItems'][0])}s"
    elif words == "array":
        words = f"list of {_type(schema.get('items', {}))}"
    elif words == "object" and isinstance(schema.get("additionalProperties"), dict):
        words = f"object of {_type(schema['additionalProperties'])}"
    return words


def _properties(schema: Mapping[str, Any]) -> str:
    rows = [
        (f"`{name}`", _type(item), item.get("description", ""))
        for name, item in schema.get("properties", {}).items()
    ]
    return table(("key", "type", "meaning"), rows)


def json_output() -> str:
    """The keys that each command prints with `--json`, from its JSON schema; shared parts come last."""
    parts = []
    shared: dict[str, Mapping[str, Any]] = {}
    for name, schema in json_schemas().items():
        parts.append(f"## sweeper {name}")
        shared |= schema.get("$defs", {})
        if "anyOf" in schema:
            parts.append(f"One of {_type(schema)}.")
        else:
            what = schema.get("description", "").removeprefix(f"`sweeper {name}`: ")
            parts += [what[:1].upper() + what[1:], _properties(schema)]
    parts.append("## Parts")
    for name, schema in sorted(shared.items()):
        parts += [f"### {name.removesuffix('Model')}", schema.get("description", "")]
        parts.append(_properties(schema) if schema.get("properties") else _type(schema))
    return "\n\n".join(parts)


FUNCTIONS = ("load_spec", "plan", "run", "open_run")
"""The functions of `sweeper`, in the order in which they are used."""


def python_api() -> str:
    """The public functions and classes of `sweeper`, for mkdocstrings to fill in."""
    public = [
        name for name in sweeper.__all__ if name not in (*FUNCTIONS, "__version__", "SweepSpec")
    ]
    classes = [getattr(sweeper, name) for name in public]
    names = vars(results).values()
    classes += [
        item for item in names if inspect.isclass(item) and item.__module__ == results.__name__
    ]
    parts = [f"::: {item.__module__}.{item.__qualname__}" for item in dict.fromkeys(classes)]
    level = "\n    options:\n      heading_level: 3"
    functions = [getattr(sweeper, name) for name in FUNCTIONS]
    return page(
        "Python API",
        "The same words as on the [command line](cli.md). Results have a short `repr`, a table in "
        "notebooks, `frame()` for pandas and `to_dict()` for what `--json` prints. Settings: "
        "[sweep file](sweep-file.md).",
        code("import sweeper", "python"),
        "## Functions",
        *(f"::: {item.__module__}.{item.__name__}{level}" for item in functions),
        "## Classes",
        *(f"{part}{level}" for part in parts),
    )


# -- Tables of the code ------------------------------------------------------------------------------------


def metrics_page() -> str:
    """Every metric: direction, purpose, source, whether it has an interval."""
    rows = [
        (
            f"`{name}`",
            kind.purpose,
            f"{kind.direction}d",
            SOURCES[kind.source],
            "Wilson, 95 %" if kind.sampled else "none",
            MEANINGS[name],
        )
        for name, kind in metrics.KINDS.items()
    ]
    harness = ", ".join(f"`{name}`" for name in metrics.HARNESS_MAXIMIZED)
    return page(
        "Metrics",
        table(("metric", "purpose", "is", "computed from", "interval", "meaning"), rows),
        "Further metrics:",
        "- `NAME/LIST`: a rate under a further keyword list.\n"
        "- `degenerate_rate/SUITE`: blank or repetitive responses without a phrase of the first list.\n"
        "- `lm_eval/TASK/METRIC` or `lm_eval/TASK/METRIC/FILTER`: a metric of lm-evaluation-harness. "
        f"{harness} are maximized; for others give `{{metric, direction}}`.",
        "What these metrics cannot see: [safety metrics](../explanation/safety-metrics.md).",
    )


def keyword_lists() -> str:
    """Every shipped list: source, rules, phrases."""
    lists = [load_keyword_list(name) for name in keyword_list_names()]
    rows = [
        (
            f"[`{item.name}`](#{item.name})",
            item.matching,
            "yes" if item.case_sensitive else "no",
            "unsafe" if item.empty_is_unsafe else "not unsafe",
            len(item.phrases),
            item.digest,
        )
        for item in lists
    ]
    parts = [
        "A response is *unsafe* if no phrase of the list matches. `substring` searches the whole response, "
        "`prefix` its start, `opening` whole words in its first words. In `opening` lists `a|b` is either "
        "word, `a,` `a:` `a.` the word with this mark after it, `...` at most three words, `^` the start. "
        "An answer within the words read makes a response no refusal, unless a redirection precedes it.",
        table(("list", "matching", "case-sensitive", "empty response", "phrases", "digest"), rows),
    ]
    for item in lists:
        parts += [f"## {item.name}", f"Source: {item.source}"]
        if item.minimum_words:
            parts.append(f"Responses of fewer than {item.minimum_words} words are never unsafe.")
        if item.window_words:
            parts.append(f"Phrases count in the first {item.window_words} words.")
        if item.answers:
            parts.append(f"Answers count in the first {item.reading_words} words.")
        parts.append(code("\n".join(item.phrases), "text"))
        for title, rules in (
            ("Answers:", item.answers),
            ("Redirections:", item.redirections),
            ("Exceptions:", item.exceptions),
        ):
            parts += [title, code("\n".join(rules), "text")] if rules else []
    return page("Keyword lists", *parts)


def suites() -> str:
    """Formats of rows and published suites of prompts."""
    formats = [
        (
            f"`{name}`",
            ", ".join(f"`{theirs}`" for theirs in columns.values() if theirs),
            ", ".join(f"`{ours}`" for ours in columns),
        )
        for name, columns in FORMATS.items()
    ]
    published = [
        (
            f"`{name}`",
            suite.hub_id,
            suite.subset or "",
            suite.split or "",
            ", ".join(f"`{column}`" for column in suite.prompt),
            ", ".join(f"`{key}={value}`" for key, value in suite.where.items()),
        )
        for name, suite in PUBLISHED.items()
    ]
    return page(
        "Data formats and suites",
        "## Formats of rows",
        table(("format", "columns of the file", "names for `columns`"), formats),
        "## Published suites",
        "Fetched from the hub by name, or read from a local copy with `{suite: NAME, path: FILE}`. The "
        "first prompt column that exists is used: the authors' name, then that of the hub's copy. No "
        "prompts are shipped.",
        table(("suite", "on the hub", "subset", "split", "prompt column", "rows"), published),
    )


def error_codes() -> str:
    """Every error class and its stable codes."""
    classes = [
        item
        for item in vars(errors).values()
        if inspect.isclass(item) and issubclass(item, errors.SweeperError)
    ]
    rows = []
    for item in classes:
        meaning = inspect.cleandoc(item.__doc__ or "").partition("\n\n")[0]
        rows.append((f"`{item.code}`", f"`{item.__name__}`", meaning))
        rows += [(f"`{fault}`", "", text) for fault, text in item.faults.items()]
    return page(
        "Error codes",
        "Every error that a user can correct is a subclass of `sweeper.errors.SweeperError`. Its `code` "
        "and `values` are stable; the wording of its message is not. The command line prints the message "
        "and ends with exit code 2.",
        table(("code", "class", "meaning"), rows),
    )


PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": cli,
    "reference/error-codes.md": error_codes,
    "reference/keyword-lists.md": keyword_lists,
    "reference/measurements.md": measurements,
    "reference/metrics.md": metrics_page,
    "reference/python.md": python_api,
    "reference/shipped-sweeps.md": shipped_sweeps,
    "reference/suites.md": suites,
}
"""Page below docs/ -> what writes it."""


@cache
def example_facts() -> dict[str, str]:
    """What `sweeper plan` says of examples/my_model.yaml, for the tutorial: the placeholders it has.

    The rows are the reader's own, so the cost is that of rows as long as those of Dolly.
    """
    spec = load_spec(
        str(ROOT / "examples" / "my_model.yaml"),
        overrides=["data.train.path=databricks/databricks-dolly-15k", "data.train.format=dolly"],
    )
    plan = make_plan(spec)
    rows = []
    for gpu in GPUS:
        cost = plan_estimate(plan, spec, workers=1, machine=Machine((gpu,), 16), look=False)
        minutes = [cost.train_seconds / 60, cost.evaluate_seconds / 60, cost.wall_seconds / 60]
        rows.append((gpu.name, *(f"{value:.0f} min" for value in minutes)))
    return {
        "configurations": f"{plan.accounting.configurations}",
        "trajectories": f"{plan.accounting.trajectories}",
        "gpu_table": table(("one GPU", "training", "evaluation", "in all"), rows),
    }


PARTS: dict[str, Callable[[], str]] = {
    "json_output": json_output,
    "sweep_file": sweep_file,
    **{
        name: partial(lambda key: example_facts()[key], name)
        for name in ("configurations", "trajectories", "gpu_table")
    },
}
"""`{{name}}` in a hand-written page -> what is written there."""


def filled(markdown: str) -> str:
    """A hand-written page with its placeholders filled.

    Raises:
        KeyError: a placeholder that is not in `PARTS`.
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda found: PARTS[found[1]](), markdown)


def hand_written(root: Path = ROOT / "docs") -> dict[str, int]:
    """Words of every hand-written page: Markdown files, and the Markdown cells of notebooks."""
    counts = {
        str(p.relative_to(root)): len(p.read_text("utf-8").split()) for p in root.rglob("*.md")
    }
    for path in root.rglob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        words = [
            w for c in cells if c["cell_type"] == "markdown" for w in "".join(c["source"]).split()
        ]
        counts[str(path.relative_to(root))] = len(words)
    return counts


if __name__ == "__main__":
    words = hand_written()
    for name, count in sorted(words.items()):
        sys.stdout.write(f"{count:6} {name}\n")
    sys.stdout.write(f"{sum(words.values()):6} in all\n")
