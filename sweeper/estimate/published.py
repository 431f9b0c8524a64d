"""Published figures of models, data sets and suites, for an estimate before downloads.

They are used only for what is not on this machine, and `sweeper plan` names them.
"""

from typing import NamedTuple

from sweeper.memory import ModelShape
from sweeper.task import DataSource, PromptSuite

SHAPES = {
    "meta-llama/Llama-2-7b-chat-hf": ModelShape(32, 4096, 11008, 32, 32, 128, 32000),
    "meta-llama/Llama-3.1-8B-Instruct": ModelShape(32, 4096, 14336, 32, 8, 128, 128256),
    "meta-llama/Llama-3.2-1B-Instruct": ModelShape(16, 2048, 8192, 32, 8, 64, 128256, tied=True),
    "meta-llama/Llama-3.2-3B-Instruct": ModelShape(28, 3072, 8192, 24, 8, 128, 128256, tied=True),
}
"""From the config.json of each model on the Hub."""


class RowFigures(NamedTuple):
    """`rows` of a data set, mean tokens (characters / 4) of a row cut at 512, and of its prompt alone."""

    rows: int
    row_tokens: float
    prompt_tokens: float


ROWS = {
    "tatsu-lab/alpaca": RowFigures(52_002, 88.9, 21.1),
    "databricks/databricks-dolly-15k": RowFigures(15_011, 160.0, 90.0),
    "Open-Orca/SlimOrca": RowFigures(517_982, 320.0, 200.0),
    "Open-Orca/OpenOrca": RowFigures(4_233_923, 320.0, 200.0),
}
"""How each number came about:

- Alpaca: measured on 1,000 real rows. By words (1.33 tokens each) the same rows have 78.
- Dolly: about 805 bytes a row follow from the card of `recastai/databricks-dolly-15k-chatml` (34,692,013
  bytes hold each of the 15,011 texts twice, and a system prompt of about 700), which is 200 tokens; a fifth
  of them is taken to be cut at 512, and the prompt to be the larger part. The 387 real rows at hand, whose
  answers are safety-flavoured, are longer: 303 after the cut (284 by words).
- SlimOrca, OpenOrca: assumed, not measured: about 1 GB of JSON over the rows of SlimOrca are 1,900 bytes
  each; a quarter is taken to be cut at 512, and prompts with their system messages to be the larger part.
"""


class PromptFigures(NamedTuple):
    """Prompts in the halves of a suite, and mean tokens (characters / 4) of a prompt."""

    search: int
    confirm: int
    tokens: float


SUITES = {
    "advbench": PromptFigures(266, 254, 18.3),
    "hex-phi": PromptFigures(165, 165, 18.3),
    "harmbench": PromptFigures(100, 100, 18.3),
    "jailbreakbench": PromptFigures(50, 50, 18.3),
    "jailbreakbench-benign": PromptFigures(50, 50, 18.3),
    "strongreject": PromptFigures(157, 156, 18.3),
    "xstest-safe": PromptFigures(118, 132, 11.1),
    "xstest-unsafe": PromptFigures(106, 94, 11.0),
}
"""AdvBench and XSTest are measured on the authors' files. Of the others the number of prompts is the
published one, taken to fall into equal halves, and prompts are taken to be as long as AdvBench's."""


def published_rows(source: DataSource) -> RowFigures | None:
    """The figures of a Hub data set, for the requested number of rows; None for an unknown one."""
    found = ROWS.get(source.path)
    if found is None or source.where:
        return None
    return found._replace(rows=min(source.rows or found.rows, found.rows))


def published_prompts(source: PromptSuite) -> list[float] | None:
    """Tokens of each prompt in the chosen half of a published suite; None for another source."""
    found = SUITES.get(source.suite or "")
    if found is None or source.path:
        return None
    counts = {"search": found.search, "confirm": found.confirm}
    count = counts.get(source.prompt_split, sum(counts.values()))
    return [found.tokens] * min(source.rows or count, count)
