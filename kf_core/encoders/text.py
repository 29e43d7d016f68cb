"""Prompts for models that read: each prompt is encoded once, and the same prompt is the same object.

The encoder is handed in as a function from a prompt to its embedding [b, tokens, width]; nothing here knows how it works.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

from ..types import TextContext

REMEMBERED = 8  # prompts; one of UMT5's is 4 MB, so a script of thousands must not keep them all

TextEncoder = Callable[[str], Tensor]


class Prompts:
    """Encoded prompts, the most recent ones remembered. `against`: what guidance leads away from, encoded once; None: no guidance."""

    def __init__(self, encode: TextEncoder, against: str | None = None) -> None:
        self._encode = encode
        self._against = None if against is None else TextContext(encode(against), against)
        self._remembered: OrderedDict[str, TextContext] = OrderedDict()

    def context(self, prompt: str) -> TextContext:
        """`prompt` encoded. Asked again soon, it is the same object, so that its keys may be reused."""
        if prompt not in self._remembered:
            self._remembered[prompt] = TextContext(self._encode(prompt), prompt, self._against)
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(prompt)
        return self._remembered[prompt]
