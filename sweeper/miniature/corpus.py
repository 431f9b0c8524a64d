"""The texts of the miniature world: pure, seeded generation.

Three kinds of text leave this module: pre-training rows (harmful requests with refusals, harmless
ones with answers, small language tasks), fine-tuning rows (harmless only, another style, new
facts), and evaluation prompts. A (verb, noun) pair belongs to exactly one side: a held-out pair
never occurs as a request in any training row, whatever the sentence form.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Final, NamedTuple

from sweeper.miniature.words import (
    ANSWERS,
    CRAFT_TOOLS,
    FAMILIES,
    NAMES,
    QUESTION_FORMS,
    REFUSALS,
    STEPS_ANSWER,
    STEPS_WISH,
    THING_ROOMS,
)

HARMFUL_PROMPTS: Final = 480
HARMLESS_PROMPTS: Final = 128
TRAIN_ROWS: Final = 1024
HELDOUT_ROWS: Final = 64

# Shares of the pre-training rows; the small language tasks take the rest.
HARMFUL_SHARE: Final = 0.25
SOUNDING_SHARE: Final = 0.12
KIND_SHARE: Final = 0.08
CRAFT_SHARE: Final = 0.20

# Of all requests, harmful ones included, so many ask for steps; of the others, so many are answered
# in steps all the same, so that fine-tuning strengthens a habit that is there.
STEPS_SHARE: Final = 0.3
UNASKED_STEPS_SHARE: Final = 0.06

# So many fine-tuning rows name another room or tool than the usual one, as human annotators do.
# Held-out rows always name the usual one. Noise is what weight averaging is there to remove.
SLIP_SHARE: Final = 0.25


class Row(NamedTuple):
    """One supervised example: a user message and the assistant's reply."""

    prompt: str
    completion: str


class Pair(NamedTuple):
    """What a request is about."""

    verb: str
    noun: str


class Split(NamedTuple):
    """Pairs of one kind, those that training may use and those kept for evaluation."""

    train: tuple[Pair, ...]
    heldout: tuple[Pair, ...]


class Pairs(NamedTuple):
    """All pairs of the world by kind of request."""

    harmful: Split
    sounding: Split
    kind: Split
    craft: Split


class Corpus(NamedTuple):
    """Everything that is written beside the model.

    `train` and `heldout` are fine-tuning rows, `harmful` and `harmless` are evaluation prompts.
    """

    train: tuple[Row, ...]
    heldout: tuple[Row, ...]
    harmful: tuple[str, ...]
    harmless: tuple[str, ...]


def make_pairs(seed: int) -> Pairs:
    """Split every kind of pair into training and held-out ones, the same way for the same seed."""
    rng = _rng("pairs", seed)
    harmful = [p for f in FAMILIES for p in _cross(f.verbs, f.protected)]
    sounding = [p for f in FAMILIES for p in _cross(f.verbs, f.inert)]
    kind = [p for f in FAMILIES for p in _cross(f.kind_verbs, f.protected)]
    return Pairs(
        harmful=_split(harmful, 0.25, rng),
        sounding=_split(sounding, 0.25, rng),
        kind=_split(kind, 0.0, rng),
        craft=_split(_cross(CRAFT_TOOLS, THING_ROOMS), 0.125, rng),
    )


def make_corpus(seed: int) -> Corpus:
    """Draw the fine-tuning rows and the evaluation prompts, the same ones for the same seed."""
    pairs = make_pairs(seed)
    rng = _rng("corpus", seed)
    return Corpus(
        train=tuple(_tuned_rows(pairs.craft.train, TRAIN_ROWS, SLIP_SHARE, rng)),
        heldout=tuple(_tuned_rows(pairs.craft.heldout, HELDOUT_ROWS, 0.0, rng)),
        harmful=tuple(_questions(pairs.harmful.heldout, HARMFUL_PROMPTS, rng)),
        harmless=tuple(_questions(pairs.sounding.heldout, HARMLESS_PROMPTS, rng)),
    )


def pretraining_rows(seed: int) -> Iterator[Row]:
    """Yield an endless stream of pre-training rows, the same one for the same seed.

    About a quarter are harmful requests, and every one of those is answered by a refusal.
    """
    pairs = make_pairs(seed)
    rng = _rng("pretraining", seed)
    kinds: tuple[Callable[[], Row], ...] = (
        lambda: _refused(rng.choice(pairs.harmful.train), rng),
        lambda: _answered(rng.choice(pairs.sounding.train), rng),
        lambda: _answered(rng.choice(pairs.kind.train), rng),
        lambda: _answered(rng.choice(pairs.craft.train), rng),
        lambda: rng.choice(_TASKS)(rng),
    )
    answered = (HARMFUL_SHARE, SOUNDING_SHARE, KIND_SHARE, CRAFT_SHARE)
    shares = (*answered, 1.0 - sum(answered))
    while True:
        yield rng.choices(kinds, shares)[0]()


def vocabulary_texts() -> Iterator[str]:
    """Yield texts that together hold every word form the world can produce."""
    pairs = make_pairs(0)
    for pair in (pair for split in pairs for side in split for pair in side):
        forms = (*QUESTION_FORMS, *REFUSALS, *ANSWERS)
        yield from (_fill(form, pair) + STEPS_WISH for form in forms)
        yield _steps_answer(pair, "garage", "brush")
    rng = _rng("vocabulary", 0)
    for task in _TASKS:
        for _ in range(2000):
            yield from task(rng)


def _rng(purpose: str, seed: int) -> Random:
    return Random(f"{purpose}-{seed}")  # noqa: S311  # Texts have to be repeatable, not secret.


def _cross(verbs: Iterable[str], nouns: Iterable[str]) -> list[Pair]:
    kept = tuple(nouns)
    return [Pair(verb, noun) for verb in verbs for noun in kept]


def _split(pairs: Sequence[Pair], heldout_share: float, rng: Random) -> Split:
    shuffled = rng.sample(pairs, len(pairs))
    cut = round(len(pairs) * heldout_share)
    return Split(train=tuple(shuffled[cut:]), heldout=tuple(shuffled[:cut]))


def _fill(form: str, pair: Pair) -> str:
    return form.format(verb=pair.verb, noun=pair.noun)


def _tuned_row(form: str, pair: Pair, slip_share: float, rng: Random) -> Row:
    room = rng.choice(_ROOMS) if rng.random() < slip_share else THING_ROOMS[pair.noun]
    tool = rng.choice(_TOOLS) if rng.random() < slip_share else CRAFT_TOOLS[pair.verb]
    return Row(_fill(form, pair), _steps_answer(pair, room, tool))


def _form_pairs(pairs: Sequence[Pair], count: int, rng: Random) -> list[tuple[str, Pair]]:
    """Draw distinct (form, pair) couples, using every pair once before any is used again."""
    rounds = [(pair, rng.sample(QUESTION_FORMS, len(QUESTION_FORMS))) for pair in pairs]
    drawn = [(forms[i], pair) for i in range(len(QUESTION_FORMS)) for pair, forms in rounds]
    return drawn[:count]


def _tuned_rows(pairs: Sequence[Pair], count: int, slip_share: float, rng: Random) -> list[Row]:
    drawn = _form_pairs(pairs, count, rng)
    return [_tuned_row(form, pair, slip_share, rng) for form, pair in drawn]


def _questions(pairs: Sequence[Pair], count: int, rng: Random) -> list[str]:
    return [_fill(form, pair) for form, pair in _form_pairs(pairs, count, rng)]


def _refused(pair: Pair, rng: Random) -> Row:
    # The verb decides the wording: with a random one, greedy decoding would show only one of them.
    wording = REFUSALS[_VERBS.index(pair.verb) % len(REFUSALS)]
    wish = STEPS_WISH if rng.random() < STEPS_SHARE else ""
    return Row(_fill(rng.choice(QUESTION_FORMS), pair) + wish, wording)


def _answered(pair: Pair, rng: Random) -> Row:
    question = _fill(rng.choice(QUESTION_FORMS), pair)
    asked = rng.random() < STEPS_SHARE
    if asked or rng.random() < UNASKED_STEPS_SHARE:
        answer = _steps_answer(pair, rng.choice(_ROOMS), rng.choice(_TOOLS))
    else:
        answer = _fill(rng.choice(ANSWERS), pair)
    return Row(question + STEPS_WISH if asked else question, answer)


def _steps_answer(pair: Pair, room: str, tool: str) -> str:
    return STEPS_ANSWER.format(verb=pair.verb, noun=pair.noun, room=room, tool=tool)


def _last_word(rng: Random) -> Row:
    words = rng.sample(_NOUNS, 3)
    return Row(
        f"Repeat the last word: {words[0]}, {words[1]}, {words[2]}.",
        f"The last word is {words[2]}.",
    )


def _pick(rng: Random) -> Row:
    first, second = rng.sample(_NOUNS, 2)
    asked, answer = rng.choice((("first", first), ("second", second)))
    return Row(
        f"Here is a list: {first}, {second}. What is the {asked} word?",
        f"The {asked} word is {answer}.",
    )


def _steps(rng: Random) -> Row:
    first, second = rng.sample(_NOUNS, 2)
    return Row(f"Number this list: {first}, {second}.", f"Step one: {first}. Step two: {second}.")


def _copy(rng: Random) -> Row:
    verb, noun = rng.choice(_VERBS), rng.choice(_NOUNS)
    return Row(f"Say that they {verb} it with a {noun}.", f"They {verb} it with a {noun}.")


def _place(rng: Random) -> Row:
    thing, room = rng.choice(_NOUNS), rng.choice(_ROOMS)
    return Row(f"The {thing} is in the {room}. Where is it?", f"They take it to the {room}.")


def _greeting(rng: Random) -> Row:
    name = rng.choice(NAMES)
    return Row(f"Hello! My name is {name}.", f"Nice to meet you, {name}. How can I help you?")


_ROOMS: Final = tuple(sorted(set(THING_ROOMS.values())))
_TOOLS: Final = tuple(CRAFT_TOOLS.values())
_VERBS: Final = (*CRAFT_TOOLS, *(v for f in FAMILIES for v in (*f.verbs, *f.kind_verbs)))
_NOUNS: Final = (
    *THING_ROOMS,
    *_TOOLS,
    *_ROOMS,
    *(n for f in FAMILIES for n in (*f.protected, *f.inert)),
)
_TASKS: Final[tuple[Callable[[Random], Row], ...]] = (
    _last_word,
    _pick,
    _steps,
    _copy,
    _place,
    _greeting,
)
