"""The training rows of a trajectory in its order, so that another trainer can repeat its steps."""

from typing import NamedTuple

from sweeper.data.chat_format import PromptFormatter
from sweeper.data.encode import Encoder, usable_rows
from sweeper.data.load import scored_prompt_hashes
from sweeper.model.batches import RowOrder
from sweeper.model.load import load_tokenizer
from sweeper.task import TrajectoryTask


class TrainingRow(NamedTuple):
    """One row, written by the training template; the completion ends with its end of turn.

    `prompt_ids` and `completion_ids` are the tokens trained on, the completion truncated to `max_length`.
    `separate_ids` are those of the completion tokenized by itself, not truncated.
    """

    prompt: str
    completion: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    separate_ids: tuple[int, ...]


def ordered_rows(task: TrajectoryTask, steps: int) -> list[TrainingRow]:
    """The rows of the first `steps` optimizer steps, batch by batch; a row appears once per use.

    Raises:
        DataError, ModelError: the data or the tokenizer is gone; see `split.split_rows`.
    """
    tokenizer = load_tokenizer(task.model)
    dialogue = task.data.template.train
    encoder = Encoder(tokenizer, dialogue.name, task.data.max_length, dialogue.system)
    writer = PromptFormatter(tokenizer, dialogue.name, dialogue.system)
    kept = []
    scored = scored_prompt_hashes(task.evaluation)
    for example in usable_rows(task.data, encoder, encoder, scored).rows:
        row = encoder.example(example)
        if row.completion:
            prompt, completion = writer.row(example)
            alone = tuple(tokenizer(completion, add_special_tokens=False)["input_ids"])
            kept.append(TrainingRow(prompt, completion, *row, alone))
    order = RowOrder(len(kept), task.optimizer.batch_size, task.seed)
    return [kept[i] for step in range(steps) for i in order.batch(step)]
