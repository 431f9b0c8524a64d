"""Finds texts that a tokenizer reads as control tokens: the end of a message inside a message."""

import re
from collections.abc import Iterable, Mapping

from transformers import PreTrainedTokenizerBase

from sweeper.errors import DataError
from sweeper.keywords.reasoning import is_tag


class ControlTokens:
    """The texts that become control tokens: special tokens, and added ones that the chat format writes.

    The tags of reasoning are none: rows with reasoning have them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, written: str) -> None:
        """Collect the tokens of a tokenizer.

        Args:
            tokenizer: It decides what in a text is a token.
            written: A conversation in the chat format.
        """
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        names = {token.content for token in added if token.special or token.content in written}
        names |= set(tokenizer.all_special_tokens)
        names = {name for name in names if name.strip() and not is_tag(name)}
        longest_first = sorted(names, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest_first))) if names else None

    def found_in(self, texts: Iterable[str]) -> tuple[str, ...]:
        """The control tokens that the texts hold, each once, in order."""
        if self._any is None:
            return ()
        found: dict[str, None] = {}
        for text in texts:
            names = dict.fromkeys(self._any.findall(text))
            if names:  # Some tokens count only as a whole word, or in none of the text.
                ids = set(self._tokenizer(text, add_special_tokens=False)["input_ids"])
                found |= {n: None for n in names if self._tokenizer.convert_tokens_to_ids(n) in ids}
        return tuple(found)


def control_token_error(
    found: Mapping[str, tuple[str, ...]], what: str, tokenizer: str, remedy: str
) -> DataError:
    """An error about texts with control tokens, to be raised.

    Args:
        found: The name of each such row or prompt, and its control tokens.
        what: What they are some of, with their number: `1,200 rows`.
        tokenizer: The name of the tokenizer.
        remedy: What to do.
    """
    tokens = list(dict.fromkeys(token for tokens in found.values() for token in tokens))
    shown = ", ".join([*(f"`{token}`" for token in tokens[:4]), *["..."] * (len(tokens) > 4)])
    first = next(iter(found))
    return DataError(
        f"{len(found):,} of {what} hold {shown} in their text, the first of them {first}; the tokenizer of "
        f"{tokenizer} reads these as control tokens; {remedy}",
        code="data.control_tokens",
        tokens=tokens,
        row=first,
        count=len(found),
    )
