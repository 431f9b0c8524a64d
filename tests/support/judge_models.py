"""Tiny judge models whose rule is written into their weights, so that their answers are known."""

from pathlib import Path

WINDOW = 2048


def write_tokenizer(
    folder: Path, added: list[str], special: list[str], *, pad: bool = True
) -> None:
    """A byte-level tokenizer without merges; `added` are whole tokens, `special` special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "</s>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", clean_up_tokenization_spaces=False
    )
    if pad:
        tokenizer.pad_token = "<pad>"
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens(added)
    tokenizer.save_pretrained(folder)


def write_generative(
    folder: Path, safe: str, unsafe: str, *, marker: str = "~", special: tuple[str, ...] = ()
) -> None:
    """A Llama that answers `unsafe` to a text with the marker in it, else `safe`, and then ends.

    One layer attends to all tokens alike and looks for the marker; the answers are tokens of their own.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    write_tokenizer(folder, [safe, unsafe], list(special))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=WINDOW,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    (mark,) = tokenizer(marker, add_special_tokens=False)["input_ids"]
    answers = {tokenizer.convert_tokens_to_ids(text): text for text in (safe, unsafe)}
    text, marked, answered = range(3)  # What the first directions of the hidden state mean.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        decoder = model.model
        norms = [decoder.layers[0].input_layernorm, decoder.layers[0].post_attention_layernorm]
        for norm in (*norms, decoder.norm):
            norm.weight.fill_(1.0)
        decoder.embed_tokens.weight[:, text] = 1.0
        decoder.embed_tokens.weight[mark] = torch.eye(8)[marked]
        for token in answers:
            decoder.embed_tokens.weight[token] = torch.eye(8)[answered]
        attention = decoder.layers[0].self_attn
        attention.v_proj.weight[marked, marked] = 1e4  # More than any text is long.
        attention.o_proj.weight.copy_(torch.eye(8))
        head = model.lm_head.weight
        head[tokenizer.convert_tokens_to_ids(safe), text] = 1.0
        head[tokenizer.convert_tokens_to_ids(unsafe), marked] = 1.0
        head[tokenizer.eos_token_id, answered] = 1e6
    model.save_pretrained(folder, safe_serialization=True)


def write_classifier(folder: Path, labels: tuple[str, ...], *, pad: bool = True) -> None:
    """A Llama classifier whose class is that of the text's last character: `0`, `1`, `2`.

    Of any other character the last class is the likeliest.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    write_tokenizer(folder, [], ["<mark>"], pad=pad)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={name: number for number, name in enumerate(labels)},
    )
    model = LlamaForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for module in model.modules():
            if type(module).__name__ == "LlamaRMSNorm":
                module.weight.fill_(1.0)  # type: ignore[operator]
        model.model.embed_tokens.weight[:, len(labels) - 1] = 1.0
        for number in range(len(labels)):
            (token,) = tokenizer(str(number), add_special_tokens=False)["input_ids"]
            model.model.embed_tokens.weight[token] = torch.eye(8)[number]
        model.score.weight.copy_(torch.eye(8)[: len(labels)])
    model.save_pretrained(folder, safe_serialization=True)
