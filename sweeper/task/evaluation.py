"""What is measured at every readout."""

from dataclasses import dataclass
from typing import Annotated, Literal

from sweeper.metrics import UTILITY_METRICS
from sweeper.task.data import Suite
from sweeper.task.fields import Before, Count, Doc, Length, OneOf, Whole, listed


@dataclass(frozen=True, slots=True)
class HarnessSettings:
    """Tasks of lm-evaluation-harness to run on every readout."""

    tasks: Annotated[tuple[str, ...], Length(1), Before(listed), Doc("Names of its tasks.")]
    include_path: Annotated[str | None, Doc("A folder of further tasks in YAML.")] = None
    num_fewshot: Annotated[Whole | None, Doc("Few-shot examples; by default the task's.")] = None
    limit: Annotated[Count | None, Doc("The most documents of a task.")] = None


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What is measured at every readout, and the decoding it is measured with.

    The first keyword list gives the `unsafe_rate`.
    """

    harmful: Annotated[
        tuple[Suite, ...],
        Length(1),
        Before(listed),
        Doc("Harmful prompts: a published suite by name, a source, or a list of both."),
    ]
    harmless: Annotated[
        tuple[Suite, ...], Before(listed), Doc("Harmless prompts; needed for `over_refusal_rate`.")
    ] = ()
    keyword_lists: Annotated[
        tuple[str, ...], Length(1), Doc("Refusal lists; the first gives the `unsafe_rate`.")
    ] = ("sweeper",)
    utility_metrics: Annotated[
        tuple[Annotated[str, OneOf(*UTILITY_METRICS)], ...],
        Length(1),
        Doc("What is measured on the held-out rows."),
    ] = ("heldout_loss", "rouge_l", "exact_match")
    max_new_tokens: Annotated[Count, Doc("The most tokens of a response.")] = 128
    base_weights: Annotated[
        Literal["4bit", "unquantized"],
        Doc(
            "What an adapter of `qlora` is scored on: the base as trained, or the checkpoint's own weights."
        ),
    ] = "4bit"
    batch_size: Annotated[
        Count, Doc("Prompts per batch; part of the measurement, as it can change rounding.")
    ] = 32
    stop_generation_early: Annotated[bool, Doc("Stop a response once every verdict is known.")] = (
        True
    )
    answer_extractor: Annotated[
        Literal["none", "gsm8k"],
        Doc("What `exact_match` compares: all of the text, or its answer."),
    ] = "none"
    lm_eval: Annotated[
        HarnessSettings | None, Doc("Tasks of lm-evaluation-harness, extra `eval`.")
    ] = None
