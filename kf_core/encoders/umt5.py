"""UMT5 without a host: a prompt becomes [1, 512, 4096], as Wan's models were trained to read it.

    words --spaces cleaned, tokens, end mark--> ids [n <= 512] --encoder--> [1, n, width] --zeros--> [1, 512, width]

Network and tokenizer are handed in (`checkpoints/umt5.py` reads them). The encoder weighs 11 GB, and a script says beforehand which
prompts it has: `encoded_ahead` reads them and lets it go.
Source: Wan 2.1, wan/modules/t5.py and tokenizers.py ("whitespace" cleaning); what is padded is not attended, and zero.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..content_id import fingerprint
from .text import TextEncoder

if TYPE_CHECKING:
    from transformers import UMT5EncoderModel

TOKENS = 512
END = 1  # the id of </s>, which closes every prompt
MOST_AHEAD = 64  # prompts encoded before the encoder is let go; one takes 8 MB

Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True, eq=False)
class UMT5:
    """A prompt's embedding by an encoder in memory. Holds weights only."""

    model: UMT5EncoderModel
    tokenize: Tokenize

    @torch.no_grad()
    def __call__(self, prompt: str) -> Tensor:
        """[1, 512, width] on the CPU; zeros after the prompt's own tokens. A prompt that is too long loses its end."""
        ids = self.tokenize(cleaned(prompt))[: TOKENS - 1]
        ids = ids if ids[-1:] == [END] else [*ids, END]
        device = next(self.model.parameters()).device
        states = self.model(input_ids=torch.tensor([ids], device=device)).last_hidden_state.float().cpu()
        padded = torch.zeros(1, TOKENS, states.shape[2])
        padded[:, : len(ids)] = states
        return padded

    @cached_property
    def content_id(self) -> str:
        """The same weights under another tokenizer read other words. Raises Unrepeatable where the tokenizer has no name."""
        return fingerprint(self.model, self.tokenize)


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """Prompts that were encoded before the stream began. Raises ValueError for any other."""

    embeddings: Mapping[str, Tensor]
    content_id: str  # of the encoder that made them

    def __call__(self, prompt: str) -> Tensor:
        if prompt not in self.embeddings:
            raise ValueError(f"the prompt {prompt!r} was not encoded ahead; {len(self.embeddings)} others were")
        return self.embeddings[prompt]


def encoded_ahead(encoder: UMT5, prompts: Sequence[str]) -> TextEncoder:
    """The prompts of a script, encoded now, so that the encoder may leave the memory; with very many, the encoder itself."""
    prompts = list(dict.fromkeys(prompts))
    if len(prompts) > MOST_AHEAD:
        return encoder
    return EncodedPrompts({prompt: encoder(prompt) for prompt in prompts}, encoder.content_id)


def cleaned(prompt: str) -> str:
    """HTML entities resolved and spaces made single."""
    return " ".join(html.unescape(html.unescape(prompt)).split())
