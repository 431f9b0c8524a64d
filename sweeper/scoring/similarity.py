"""Similarity of a response to its reference, in [0, 1] and in every script: ROUGE-L and chrF."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from sweeper.errors import MissingExtraError

Pairs = Sequence[tuple[str, str]]
"""(response, reference) of each row."""

# Thai, Lao, Tibetan, Burmese, Khmer, kana, Bopomofo, Yi and Chinese characters: no spaces between words.
_SOLO = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31a0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\U0001aff0-\U0001b16f\U00020000-\U0003ffff]"
)


class AllScripts:
    """A tokenizer for rouge-score that sees the letters of every script.

    Tokens are lower-cased runs of letters, combining marks and digits (Unicode categories L, M, N, after
    NFKC); a character of a script without spaces is a token of its own, with its marks. On ASCII text this
    is rouge-score's default, which sees nothing else. With `symbols`, every other visible character is a
    token, too.
    """

    def __init__(self, *, symbols: bool = False) -> None:
        self._symbols = symbols

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, in order."""
        return "".join(self._spaced(unicodedata.normalize("NFKC", text.lower()).lower())).split()

    def _spaced(self, text: str) -> Iterator[str]:
        """The characters of the tokens, with spaces between tokens."""
        in_word = after_solo = False
        for char in text:
            category = unicodedata.category(char)[0]
            if category == "M":
                yield char if in_word else ""
                continue
            in_word = category in "LN"
            solo = in_word and _SOLO.match(char) is not None
            yield " " if solo or after_solo or not in_word else ""
            after_solo = solo
            yield char if in_word else f"{char} " if self._symbols and category in "PS" else ""


def rouge_l(pairs: Pairs) -> list[float]:
    """ROUGE-L F1 of each pair (Lin 2004; package rouge-score, stemming off), with tokens of `AllScripts`.

    Where a reference has neither letters nor digits, the symbols of both texts are compared.

    Raises:
        MissingExtraError: rouge-score is not installed.
    """
    try:  # Imported here because other metrics do not need it.
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise _missing("rouge_l", "rouge-score") from None
    words = AllScripts()
    by_words = RougeScorer(["rougeL"], tokenizer=words)
    by_symbols = RougeScorer(["rougeL"], tokenizer=AllScripts(symbols=True))
    return [
        (by_words if words.tokenize(reference) else by_symbols)
        .score(reference, text)["rougeL"]
        .fmeasure
        for text, reference in pairs
    ]


def chrf(pairs: Pairs) -> list[float]:
    """Sentence-level chrF of each pair: the F2 score of character n-grams up to 6, white space left out.

    Popovic 2015 (aclanthology.org/W15-3049), by package sacrebleu with its defaults, divided by 100.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    try:  # Imported here because other metrics do not need it.
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise _missing("chrf", "sacrebleu") from None
    scorer = CHRF()
    scores = (scorer.sentence_score(text, [reference]).score for text, reference in pairs)
    return [min(1.0, score / 100) for score in scores]


def _missing(metric: str, package: str) -> MissingExtraError:
    return MissingExtraError(
        f"the metric {metric} needs the package {package}; install `sweeper-llm[train]`, or remove "
        f"{metric} from evaluation.utility_metrics"
    )
