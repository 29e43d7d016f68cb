"""What hears and reads for a generator: the host's own AUDIO_ENCODER and CLIP, called as kf_core calls transformers' networks.

Words are encoded before the generator is loaded; the hearing encoder stays beside it. Knows nothing of what is denoised.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import pad

from ...kf_core.content_id import fingerprint
from ...kf_core.encoders.text import TextEncoder
from ...kf_core.errors import KnotForcingError
from ...kf_core.models.card import ModelCard
from ...kf_core.sampling.guidance import negative_prompt
from ...kf_core.settings import RolloutSettings
from ..wires import Driver
from .weights import name_of_weights, patches_of

EAGER_ON_CPU = 64  # prompts encoded before the first frame; there a text encoder pushes nothing out, and others can wait


@dataclass(frozen=True, eq=False)
class Encoders:
    """What hears and reads for the generator, and what the host must load for it."""

    hears: nn.Module | None = None
    reads: TextEncoder | None = None
    patchers: tuple = ()


def require_audio_encoder(card: ModelCard, driver: Driver) -> None:
    """Raises KnotForcingError when the model hears through an encoder that is not connected, or is another one."""
    if not _is_heard(card, driver):
        return
    if driver.audio_encoder is None:
        raise KnotForcingError(
            f"{card.name} hears through wav2vec 2.0, silence too. Load wav2vec2-base-960h with Load Audio Encoder and connect it to "
            f"Audio Conditioning. Without a voice leave its `audio` open: then the mouth rests."
        )
    if not isinstance(driver.audio_encoder.model, Wav2Vec2Model):
        raise KnotForcingError(
            f"{card.name} hears through wav2vec 2.0, and the connected AUDIO_ENCODER is a {type(driver.audio_encoder.model).__name__}. "
            f"Load wav2vec2-base-960h with Load Audio Encoder instead."
        )


def encoders_for(card: ModelCard, driver: Driver, settings: RolloutSettings) -> Encoders:
    """What this model needs of what is connected. Encodes the words of the script, and what guidance leads away from."""
    hears, patchers = None, ()
    if _is_heard(card, driver):
        hears, patchers = HostWav2Vec2(driver.audio_encoder), (driver.audio_encoder.patcher,)
    reads = None if card.text.kind == "none" or driver.clip is None else HostReader(driver.clip, card.text.tokens)
    if reads is not None:
        # now, because later the text encoder would push the generator out of memory
        against = negative_prompt(card, driver.driving, settings)
        reads.encode_ahead([*filter(None, [against]), *(line.words for line in driver.driving.words.prompts())])
    return Encoders(hears, reads, patchers)


class HostReader:
    """A host's CLIP that reads prompts: [1, tokens, width] each, zeros after its own tokens. Remembers what it encoded ahead."""

    def __init__(self, clip, tokens: int) -> None:
        self._clip, self._tokens = clip, tokens
        self._encoded: dict[str, tuple[Tensor, int]] = {}  # what is not zero, and how many rows of zeros follow
        tokenizer = clip.tokenizer.state_dict()  # the host saves it beside the weights under these names
        self.content_id = fingerprint(name_of_weights(clip.patcher), patches_of(clip.patcher), tokenizer)

    def __call__(self, prompt: str) -> Tensor:
        if prompt in self._encoded:
            said, zeros = self._encoded[prompt]
            return pad(said, (0, 0, 0, zeros))
        return self._clip.encode_from_tokens(self._clip.tokenize(prompt))[:, : self._tokens]

    def encode_ahead(self, prompts: list[str]) -> None:
        """All of them, since a text encoder that reads on the card later pushes out the generator in the middle of a pass."""
        once = list(dict.fromkeys(prompts))
        for prompt in once[:EAGER_ON_CPU] if self._clip.patcher.load_device.type == "cpu" else once:
            encoded = self(prompt)
            own = 1 + int(encoded[0].any(dim=-1).nonzero().max())  # of 512 rows: a script may have thousands of prompts
            self._encoded[prompt] = encoded[:, :own].clone(), encoded.shape[1] - own


class HostWav2Vec2(nn.Module):
    """The host's wav2vec 2.0 called as kf_core calls transformers' one: the same layers, handed over in the other order of axes."""

    def __init__(self, encoder) -> None:
        super().__init__()
        theirs = encoder.model
        self.theirs = theirs
        self.encoder = SimpleNamespace(pos_conv_embed=self._positions, layer_norm=theirs.encoder.layer_norm, layers=theirs.encoder.layers)
        self.device, self.dtype = encoder.load_device, torch.float32  # its layers compute in what comes, whatever they are kept in
        self.config = SimpleNamespace(
            do_stable_layer_norm=theirs.encoder.do_stable_layer_norm,
            hidden_size=theirs.encoder.layer_norm.normalized_shape[0],
            num_hidden_layers=len(theirs.encoder.layers),
        )

    def feature_extractor(self, wave: Tensor) -> Tensor:
        return self.theirs.feature_extractor(wave).transpose(1, 2)

    def feature_projection(self, heard: Tensor) -> tuple[Tensor, Tensor]:
        return self.theirs.feature_projection(heard), heard

    def _positions(self, hidden: Tensor) -> Tensor:
        """The host's own, with its weights where `hidden` is: what it loads in part keeps these off the card, unlike others."""
        theirs = self.theirs.encoder.pos_conv_embed
        return functional_call(theirs, {name: weight.to(hidden.device) for name, weight in theirs.named_parameters()}, (hidden,))


def _is_heard(card: ModelCard, driver: Driver) -> bool:
    return card.audio is not None and card.audio.kind == "wav2vec2" and driver.driving.audio_strength > 0
