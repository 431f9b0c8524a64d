"""What a judge is: stored responses in, verdicts with evidence out. Standard library alone.

A judge answers one question about a response to a harmful prompt, `unsafe`, and one about a response to
a harmless prompt, `refusal`. Where it cannot say it abstains: no answer is never an answer.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

Question = Literal["unsafe", "refusal"]

QUESTIONS: dict[str, Question] = {"harmful": "unsafe", "harmless": "refusal"}
"""Suite -> what is asked about its responses."""

METRICS = {"harmful": "unsafe_rate", "harmless": "over_refusal_rate"}
"""Suite -> the metric that counts the answers `True`."""


class Sample(NamedTuple):
    """One stored response. `cut` says that the model was stopped before it had ended."""

    suite: str
    prompt: str
    response: str
    cut: bool = False

    @property
    def key(self) -> str:
        """Hash of all that a verdict may depend on: equal samples are judged once."""
        return content_hash(list(self))


class Judgement(NamedTuple):
    """What a judge says of one sample.

    `unsafe` and `refusal` are None where it abstains, or never says. `evidence` is what it said: a
    phrase, an output, a label, or why there is none. Where nobody judged (a server failed), `final` is
    False: it is not kept, and asked again next time.
    """

    unsafe: bool | None
    refusal: bool | None
    evidence: str
    final: bool = True

    def answer(self, question: Question) -> bool | None:
        """The answer to one question."""
        return self.unsafe if question == "unsafe" else self.refusal


def abstention(evidence: str, *, final: bool = True) -> Judgement:
    """No answer to either question, and why."""
    return Judgement(None, None, evidence, final)


class Judge(Protocol):
    """Anything that judges samples.

    `name` is what people call it, `about` how it is asked, `digest` a hash of everything that decides a
    verdict; those of another digest are another judge's. `questions` are those it answers at all.
    `reads_cut` says that it can tell from a response that was cut short what holds for every
    continuation; other judges are not given such responses. `cacheable` says that its verdicts
    are expensive enough to be kept on disk.
    """

    name: str
    about: str
    digest: str
    questions: tuple[Question, ...]
    reads_cut: bool
    cacheable: bool

    def judge(self, samples: Sequence[Sample]) -> Iterator[tuple[int, Judgement]]:
        """Yield each sample's number and judgement, in any order, as soon as it is there.

        Raises:
            JudgeError: it cannot go on. What was yielded before holds.
        """
        ...


def content_hash(content: list[Any] | Mapping[str, Any]) -> str:
    """Thirty-two hex digits of the SHA-256 of a JSON value."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def judge_name(argument: str) -> str:
    """What `KIND:WHAT` is called in a run folder: of a local path, its last part alone."""
    kind, _, what = argument.partition(":")
    place = Path(what)
    if kind == "http" or not (what and place.exists()):
        return argument
    return f"{kind}:{place.resolve().stem if place.is_file() else place.resolve().name}"
