"""Reasoning that a model writes before its answer: the answer is judged and measured, not the reasoning.

A block is `<think>...</think>`, or the same with the tags of other reasoning models: thinking, thought,
reasoning, reflection, scratchpad, with a prefix such as `seed:think` (Seed-OSS), `[THINK]` (Magistral),
triangles (Kimi), `<|START_THINKING|>` (Command), `<|begin_of_thought|>` (Sky-T1); and the channel
`analysis` of gpt-oss, as it is decoded, up to `assistantfinal`. An unclosed block reaches to the end; a
closing tag alone ends a block that the prompt began.
"""

import re

_NAME = r"(?:\w+[:_]|ant)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)"
_TAG = re.compile(
    rf"(?i:<\|?/{_NAME}\s*\|?>|\u25c1/{_NAME}\u25b7|<\|end_(?:of_)?(?:thinking|thought)\|>)|\[/THINK\]"
    r"|assistantfinal"
    rf"|(?P<open>(?i:<\|?{_NAME}(?:\s[^<>\n]{{0,80}})?\|?>|\u25c1{_NAME}\u25b7)|\[THINK\]"
    r"|\A\s*analysis(?=[A-Z]))"
)
_BEGUN = re.compile(r"[<\[\u25c1][^<>\[\]\u25c1\u25b7\n]{0,100}\Z")
_CHANNEL = "analysis"


def is_tag(text: str) -> bool:
    """Whether a text is one tag that begins or ends reasoning."""
    return _TAG.fullmatch(text) is not None


def without_reasoning(text: str) -> str:
    """The text with blanks in place of reasoning, of the same length."""
    return "".join(part if shown else " " * len(part) for part, shown in _parts(text))


def answer_of(text: str) -> str:
    """The text without its reasoning and the white space around it; unchanged where it has none."""
    parts = _parts(text)
    if all(shown for _, shown in parts):
        return text
    return "".join(part for part, shown in parts if shown).strip()


def decided_part(text: str) -> str:
    """The part of a text that may be continued in which no later tag can begin.

    A closing tag without an opening one is not foreseen: what a prompt opens belongs to the text.
    """
    begun = _BEGUN.search(text)
    text = text if begun is None else text[: begun.start()]
    return "" if _CHANNEL.startswith(text.strip()) else text


def opened_reasoning(prompt: str) -> str:
    """The opening tag at the end of a prompt, which a response goes on from; "" if there is none."""
    tags = [tag for tag in _TAG.finditer(prompt) if not prompt[tag.end() :].strip()]
    return prompt[tags[-1].start() :] if tags and tags[-1]["open"] else ""


def _parts(text: str) -> list[tuple[str, bool]]:
    """The text in parts, each with whether it belongs to the answer."""
    parts: list[tuple[str, bool]] = []
    start, opened = 0, False
    for tag in _TAG.finditer(text):
        if tag["open"]:
            if not opened:
                parts.append((text[start : tag.start()], True))
                start, opened = tag.start(), True
            continue
        if not opened:
            parts = [(part, False) for part, _ in parts]
        parts.append((text[start : tag.end()], False))
        start, opened = tag.end(), False
    return [*parts, (text[start:], not opened)]
