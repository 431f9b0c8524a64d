"""Formats conversations as text: with the model's own chat template, Llama-2's format, or Alpaca's."""

import re
from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from sweeper.data.formats import Example, Turn
from sweeper.errors import DataError

CHAT_DATE = "01 Jan 2025"
"""Some chat templates write the date into every prompt; a fixed date keeps runs comparable.

Llama 3 templates take it as `date_string`; in others `strftime_now` returns it.
"""

_STOPPED_CLOCK = f"{{% macro strftime_now(format) %}}{CHAT_DATE}{{% endmacro +%}}"

_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{prompt}\n\n### Response:\n"
)

PROBE = Example("Where is question 4711?", "It is answer 1174")
"""A conversation that no template holds by chance."""

_THINK = re.compile(r"\s*</?think>\s*")

_UNSAFE_TO_RENDER = (TemplateError, TypeError, ValueError, LookupError, AttributeError)
"""What a template can raise: Jinja's own errors, and those of the Python it evaluates."""

_LLAMA2_SYSTEM = "<<SYS>>\n{system}\n<</SYS>>\n\n"


class PromptFormatter:
    """Formats conversations with a tokenizer's chat template, or in the Llama-2 or Alpaca format.

    `system` is the system prompt for conversations that do not have one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, system: str | None) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._system = system
        self._template = self._chat_template() if name == "chat" else ""
        if tokenizer.eos_token_id is None:
            raise DataError(
                f"the tokenizer {tokenizer.name_or_path} has no end-of-text token; set its `eos_token`",
                code="data.chat_template",
                tokenizer=tokenizer.name_or_path,
                part="eos_token",
            )

    def prompt(self, text: str, before: Sequence[Turn] = ()) -> str:
        """The prompt for the user message `text`, up to where the answer begins.

        Args:
            text: The last user message.
            before: Earlier turns; the first may be a system prompt.

        Raises:
            DataError: the format does not support system prompts or earlier turns.
        """
        return self._prompt(self._turns(text, before))

    def row(self, example: Example) -> tuple[str, str]:
        """The text of the prompt, and the text of its completion including the end of turn.

        Raises:
            DataError: see `prompt`; or the chat template formats a prompt differently once it is answered.
        """
        turns = self._turns(example.prompt, example.before)
        prompt = self._prompt(turns)
        if self._name == "alpaca":
            return prompt, f"{example.completion}{self._tokenizer.eos_token}"
        if self._name == "llama2":
            return prompt, self._llama2_answer(example.completion)
        turns.append(Turn("assistant", example.completion))
        conversation = self._chat(turns, add_generation_prompt=False)
        if not conversation.startswith(prompt):
            raise DataError(
                "the chat template formats a prompt differently once it is answered, so the completion "
                "cannot be separated from the prompt; use `data.template: alpaca`",
                code="data.chat_template",
                part="completion",
            )
        return prompt, conversation[len(prompt) :]

    def end_of_turn(self) -> str:
        """What the format writes after an answer, for example `<|im_end|>` and a line end.

        Raises:
            DataError: see `row`; or the template loses text.
        """
        return self.row(PROBE)[1].rpartition(PROBE.completion)[2]

    def written(self) -> str:
        """A short conversation with everything that the format writes around its messages.

        Raises:
            DataError: see `end_of_turn`.
        """
        return "".join(PromptFormatter(self._tokenizer, self._name, None).row(PROBE))

    def messages(self, text: str, before: Sequence[Turn] = ()) -> list[Turn]:
        """The turns that the prompt for `text` shows, with the system prompt of the settings."""
        return self._turns(text, before)

    def _turns(self, text: str, before: Sequence[Turn]) -> list[Turn]:
        turns = [*before, Turn("user", text)]
        if self._system is not None and turns[0].role != "system":
            turns.insert(0, Turn("system", self._system))
        return turns

    def _prompt(self, turns: Sequence[Turn]) -> str:
        if self._name == "alpaca":
            return self._alpaca(turns)
        if self._name == "llama2":
            return self._llama2(turns)
        return self._chat(turns, add_generation_prompt=True)

    def _alpaca(self, turns: Sequence[Turn]) -> str:
        """Alpaca's prompt without `### Input:`; the input follows the instruction after a blank line."""
        if len(turns) > 1:
            unsupported = "system prompt" if turns[0].role == "system" else "earlier turns"
            raise DataError(
                f"`data.template: alpaca` does not support the {unsupported} of a row; use `chat` or "
                "`llama2`, or map only the prompt and its answer with `format: prompt_completion`",
                code="data.chat_template",
                part=unsupported,
            )
        return (self._tokenizer.bos_token or "") + _ALPACA.format(prompt=turns[0].text)

    def _llama2(self, turns: Sequence[Turn]) -> str:
        """`<s>[INST] <<SYS>>...<</SYS>> prompt [/INST]`, after the earlier exchanges in the same format.

        The format of Llama-2-chat (arXiv 2307.09288): the system prompt is part of the first
        instruction, and every exchange has its own begin and end tokens.
        """
        system = ""
        if turns[0].role == "system":
            system = _LLAMA2_SYSTEM.format(system=turns[0].text)
            turns = turns[1:]
        text = ""
        for turn in turns:
            if turn.role == "assistant":
                text += self._llama2_answer(turn.text)
            else:
                text += (
                    f"{self._tokenizer.bos_token or ''}[INST] {system}{turn.text.strip()} [/INST]"
                )
                system = ""
        return text

    def _llama2_answer(self, completion: str) -> str:
        return f" {completion.strip()} {self._tokenizer.eos_token}"

    def _chat_template(self) -> str:
        name = self._tokenizer.name_or_path
        try:
            template = self._tokenizer.get_chat_template()
        except ValueError:  # None, or several and no default.
            raise DataError(
                f"the tokenizer {name} has no chat template; use `data.template: alpaca` or `llama2`, or "
                "choose an instruction-tuned model",
                code="data.chat_template",
                tokenizer=name,
                part="chat_template",
            ) from None
        return (_STOPPED_CLOCK if "strftime_now" in template else "") + str(template)

    def _chat(self, turns: Sequence[Turn], *, add_generation_prompt: bool) -> str:
        """Apply the chat template.

        Raises:
            DataError: the template rejects the conversation, or loses text of it.
        """
        name = self._tokenizer.name_or_path
        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": turn.role, "content": turn.text} for turn in turns],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                date_string=CHAT_DATE,
            )
        except _UNSAFE_TO_RENDER as error:
            roles = ", ".join(turn.role for turn in turns)
            raise DataError(
                f"the chat template of {name} rejects the turns {roles}: {error}; use "
                "`data.template: llama2`, or remove the system prompt or the earlier turns",
                code="data.chat_template",
                tokenizer=name,
                roles=roles,
                part="turns",
            ) from None
        self._check_complete(turns, str(text))
        return str(text)

    def _check_complete(self, turns: Sequence[Turn], text: str) -> None:
        """Reject a conversation of which the template has lost text, but for white space at its ends.

        The messages must stand in their order; a system prompt may stand anywhere.

        Raises:
            DataError: names the message and what is lost.
        """
        place = 0
        for turn in turns:
            system = turn.role == "system"
            for piece in pieces_of(turn.text):
                found = text.find(piece, 0 if system else place)
                if found < 0:
                    raise self._lost(turn.role, piece)
                place = place if system else found + len(piece)

    def _lost(self, role: str, piece: str) -> DataError:
        name = self._tokenizer.name_or_path
        if role == "system":
            return DataError(
                f"the chat template of {name} drops the system prompt, or a part of it; use "
                "`data.template: llama2`, or remove `system`",
                code="data.chat_template",
                tokenizer=name,
                part="system prompt",
            )
        return DataError(
            f"the chat template of {name} loses text of the {role} message, from "
            f"{shortened(piece)} on; use `data.template: llama2` or `alpaca`, or a chat template "
            "that writes each message (`message['content']`, a text) as it is",
            code="data.chat_template",
            tokenizer=name,
            part=f"{role} message",
        )


def pieces_of(message: str) -> list[str]:
    """What must be found of a message: its text without white space at its ends.

    A template may write the tags of reasoning on lines of their own, so the text on both sides of one
    counts by itself.
    """
    return [piece for piece in _THINK.split(message.strip()) if piece]


def shortened(text: str) -> str:
    """The beginning of a text, quoted, for a message."""
    return repr(text if len(text) <= 24 else f"{text[:24]}...")
