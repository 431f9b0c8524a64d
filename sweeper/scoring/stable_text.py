"""`StableText`: what a response that is still being generated says for certain."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


class StableText:
    """Decodes the part of a token sequence that no further token can change.

    Omitted are incomplete characters, a trailing run of byte tokens (sentencepiece decodes such a run as a
    unit, across skipped special tokens), and the last two words if decoding rewrites spaces.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, opened: str = "") -> None:
        self._tokenizer, self._opened = tokenizer, opened
        vocabulary = tokenizer.get_vocab()
        self._open = {i for token, i in vocabulary.items() if _is_byte_token(token)}
        self._open |= set(tokenizer.all_special_ids)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = type(getattr(backend, "decoder", None)).__name__
        self._rewrites = bool(tokenizer.clean_up_tokenization_spaces) or decoder == "WordPiece"

    def __call__(self, tokens: Sequence[int]) -> str:
        """The stable text after what the prompt has opened; special tokens are left out."""
        end = len(tokens)
        while end and tokens[end - 1] in self._open:
            end -= 1
        text = str(self._tokenizer.decode(list(tokens[:end]), skip_special_tokens=True))
        text = text.rstrip("\ufffd")
        return self._opened + (" ".join(text.split(" ")[:-2]) if self._rewrites else text)


def _is_byte_token(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
