"""The training rows of a trajectory as text, in its order, so that another trainer can repeat its steps."""

from typing import NamedTuple

from sweeper.data.chat_format import PromptFormatter
from sweeper.data.encode import Encoder
from sweeper.data.split import split_rows
from sweeper.model.batches import RowOrder
from sweeper.model.load import load_tokenizer
from sweeper.task import TrajectoryTask


class Text(NamedTuple):
    """One row, written by the training template; the completion ends with its end of turn."""

    prompt: str
    completion: str


def ordered_texts(task: TrajectoryTask, steps: int) -> list[Text]:
    """The rows of the first `steps` optimizer steps, batch by batch; a row appears once per use.

    Completions are whole: they are cut at `max_length` tokens when they are trained on.

    Raises:
        DataError, ModelError: the data or the tokenizer is gone; see `split.split_rows`.
    """
    tokenizer = load_tokenizer(task.model)
    dialogue = task.data.template.train
    encoder = Encoder(tokenizer, dialogue.name, task.data.max_length, dialogue.system)
    examples = split_rows(task.data).train.values()
    kept = [example for example in examples if encoder.example(example).completion]
    writer = PromptFormatter(tokenizer, dialogue.name, dialogue.system)
    order = RowOrder(len(kept), task.optimizer.batch_size, task.seed)
    return [Text(*writer.row(kept[i])) for step in range(steps) for i in order.batch(step)]
