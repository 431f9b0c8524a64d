"""The interface of a judge: stored responses in, verdicts with evidence out. Standard library only.

A judge answers one question about a response to a harmful prompt, `unsafe`, and one about a response to
a harmless prompt, `refusal`. Where it cannot decide it abstains, and an abstention never counts as a
verdict.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

Question = Literal["unsafe", "refusal"]

QUESTIONS: dict[str, Question] = {"harmful": "unsafe", "harmless": "refusal"}
"""Suite -> the question about its responses."""

METRICS = {"harmful": "unsafe_rate", "harmless": "over_refusal_rate"}
"""Suite -> the metric that counts the answers `True`."""


class Sample(NamedTuple):
    """One stored response. `cut` says that generation was stopped early."""

    suite: str
    prompt: str
    response: str
    cut: bool = False

    @property
    def key(self) -> str:
        """Hash of everything a verdict may depend on: equal samples are judged once."""
        return content_hash(list(self))


class Judgement(NamedTuple):
    """The verdict of a judge on one sample.

    `unsafe` and `refusal` are None where it abstains or does not answer this question. `evidence` is a
    phrase, an output, a label, or the reason for abstaining. If the sample was not judged (a server
    failed), `final` is False: the result is not stored, and the next run asks again.
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

    `name` is its display name, `about` describes its configuration, `digest` is a hash of everything that
    affects a verdict: another digest is another judge. `questions` are those it answers. `reads_cut` says
    that it can judge a truncated response for every possible continuation; other judges do not get such
    responses. `cacheable` says that its verdicts are expensive enough to be cached on disk.
    """

    name: str
    about: str
    digest: str
    questions: tuple[Question, ...]
    reads_cut: bool
    cacheable: bool

    def judge(self, samples: Sequence[Sample]) -> Iterator[tuple[int, Judgement]]:
        """Yield each sample's index and judgement, in any order, as soon as it is known.

        Raises:
            JudgeError: it cannot continue. Judgements yielded before remain valid.
        """
        ...


def content_hash(content: list[Any] | Mapping[str, Any]) -> str:
    """Thirty-two hex digits of the SHA-256 of a JSON value."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def judge_name(argument: str) -> str:
    """The name of `KIND:WHAT` in a run folder; a local path is reduced to its last part."""
    kind, _, what = argument.partition(":")
    place = Path(what)
    if kind == "http" or not (what and place.exists()):
        return argument
    return f"{kind}:{place.resolve().stem if place.is_file() else place.resolve().name}"
