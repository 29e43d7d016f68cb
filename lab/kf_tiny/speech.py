"""Spoken sound with its phonemes: espeak-ng says sentences and tells when each phoneme begins.

Voices for training and voices held out are disjoint, and so are their sentences. Knows nothing of mouths (`visemes.py`).
Source: espeak-ng's speak_lib.h, called through ctypes; any espeak-ng 1.50 or newer will do.
"""

import ctypes
import ctypes.util
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from kf_core.errors import KnotForcingError

from .sentences import HELD_OUT_SENTENCES, sentence

SAMPLE_RATE_HZ = 16_000
ACTIVE_RMS = 0.1  # loudness of speech while it is spoken
SILENCE = ""  # the phoneme name of a pause


@dataclass(frozen=True, eq=False)
class Speech:
    """Sound and what is said in it. A phoneme lasts until the next begins; the first begins at 0."""

    samples: np.ndarray  # [samples] float32 at 16 kHz, active speech at RMS 0.1
    phonemes: tuple[tuple[float, str], ...]  # (seconds, IPA name), in order; SILENCE is a pause

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Voice:
    """One espeak-ng voice, `variant` being its timbre."""

    language: str  # the name of its file: en is British, en-US, de, ...
    variant: str = ""

    @property
    def name(self) -> str:
        return f"{self.language}+{self.variant}" if self.variant else self.language


TRAINING_VOICES = (
    Voice("en-US"),
    Voice("en"),
    Voice("en-GB-scotland"),
    Voice("en-GB-x-rp"),
    Voice("en-US", "f2"),
    Voice("en", "f4"),
    Voice("en-US", "m3"),
    Voice("en", "m5"),
    Voice("en-US", "f1"),
    Voice("en-GB-x-rp", "m2"),
    Voice("en-US", "m6"),
    Voice("en-GB-scotland", "f2"),
    Voice("en-US", "Andrea"),
    Voice("en", "Denis"),
    Voice("en-US", "Hugo"),
    Voice("en-GB-x-rp", "f4"),
    Voice("de"),
    Voice("de", "f4"),
    Voice("fr", "f2"),
    Voice("es"),
    Voice("it", "m3"),
    Voice("en-US", "m1"),
    Voice("en", "m8"),
    Voice("en-US", "Alicia"),
    Voice("en", "Alex"),
    Voice("en-US", "linda"),
    Voice("en-GB-x-rp", "steph"),
    Voice("en", "adam"),
    Voice("en-US", "belinda"),
    Voice("en-US", "Michael"),
    Voice("en-GB-scotland", "benjamin"),
    Voice("en-US", "caleb"),
    Voice("en", "victor"),
    Voice("en-US", "Lee"),
    Voice("en", "paul"),
    Voice("en-US", "klatt"),
    Voice("en-GB-x-rp", "klatt3"),
    Voice("en-US", "shelby"),
    Voice("en", "edward"),
    Voice("de", "Gene"),
    Voice("fr", "michel"),
    Voice("es", "norbert"),
    Voice("it", "anika"),
    Voice("en-US", "grandma"),
    Voice("en", "grandpa"),
)
HELD_OUT_VOICES = (
    Voice("en-US", "f5"),
    Voice("en", "m7"),
    Voice("en-US", "Annie"),
    Voice("en", "f3"),
    Voice("en-US", "m4"),
    Voice("en-GB-x-rp", "Andy"),
)


def speak(text: str, voice: Voice, words_per_minute: int = 160, pitch: int = 50) -> Speech:
    """Say `text`. Raises KnotForcingError when espeak-ng or the voice is missing.

    espeak-ng carries some of its state into the next sentence, so the second time may differ by milliseconds from the first."""
    sound, rate_hz, events = _engine().synthesise(text, voice.name, words_per_minute, pitch)
    phonemes = [(start / rate_hz, name) for start, name in events if start < len(sound)]
    if not phonemes or phonemes[0][0] > 0:
        phonemes.insert(0, (0.0, SILENCE))
    samples = soxr.resample(sound.astype(np.float32) / 32768, rate_hz, SAMPLE_RATE_HZ, quality="MQ")
    return Speech(normalise(samples), tuple(phonemes))


def monologue(voice: Voice, seconds: float, seed: int, *, held_out: bool = False) -> Speech:
    """About `seconds` of sentences at changing pace and pitch with pauses between them; the seed chooses the words."""
    generator = np.random.default_rng([seed, *voice.name.encode()])
    parts, length = [pause(generator.uniform(0.05, 0.4))], 0.0
    while length < seconds:
        text = str(generator.choice(HELD_OUT_SENTENCES)) if held_out else sentence(voice.language, generator)
        said = speak(text, voice, int(generator.integers(125, 200)), int(generator.integers(25, 80)))
        parts += [said, pause(generator.uniform(0.1, 0.7) if generator.random() < 0.8 else generator.uniform(0.7, 2.0))]
        length += parts[-2].seconds + parts[-1].seconds
    return join(parts)


def pause(seconds: float) -> Speech:
    return Speech(np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32), ((0.0, SILENCE),))


def join(parts: Sequence[Speech]) -> Speech:
    """One after the other."""
    starts = np.cumsum([0.0] + [part.seconds for part in parts])
    phonemes = tuple((start + seconds, name) for start, part in zip(starts, parts, strict=False) for seconds, name in part.phonemes)
    return Speech(np.concatenate([part.samples for part in parts]), phonemes)


def normalise(samples: np.ndarray) -> np.ndarray:
    """Bring the RMS of the parts that sound to `ACTIVE_RMS`; silence stays silence."""
    power = np.convolve(samples**2, np.full(400, 1 / 400, np.float32), "same")
    active = power > (0.15**2) * np.percentile(power, 98)
    rms = float(np.sqrt(np.mean(samples[active] ** 2))) if active.any() else 0.0
    return samples if rms < 1e-5 else (samples * (ACTIVE_RMS / rms)).astype(np.float32)


@functools.cache
def _engine() -> "_Espeak":
    return _Espeak()  # one per process: the library keeps its voice and callback in globals


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


class _Espeak:
    """espeak-ng, speaking into memory. Constants are those of speak_lib.h."""

    SYNCHRONOUS, PHONEME_EVENTS, IPA_NAMES, DO_NOT_EXIT = 2, 1, 2, 0x8000
    LIST_END, PHONEME = 0, 7
    RATE, PITCH, UTF8 = 1, 3, 1

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self.library = ctypes.CDLL(name)
        except OSError as problem:
            raise KnotForcingError(
                f"Training needs a voice, and espeak-ng was not found ({problem}). Install it (Debian: apt install libespeak-ng1; "
                f"macOS: brew install espeak-ng; Windows: the installer from its releases) and run the command again."
            ) from problem
        options = self.PHONEME_EVENTS | self.IPA_NAMES | self.DO_NOT_EXIT
        self.rate_hz = self.library.espeak_Initialize(self.SYNCHRONOUS, 0, None, options)
        if self.rate_hz <= 0:
            raise KnotForcingError("espeak-ng is installed without its voices. Install its data (Debian: apt install espeak-ng-data).")
        self.blocks: list[np.ndarray] = []
        self.events: list[tuple[int, str]] = []
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self.callback = signature(self._receive)  # kept: espeak-ng holds only the address
        self.library.espeak_SetSynthCallback(self.callback)

    def synthesise(self, text: str, voice: str, words_per_minute: int, pitch: int) -> tuple[np.ndarray, int, list[tuple[int, str]]]:
        """(int16 samples, their rate, [(sample, phoneme)])."""
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise KnotForcingError(f"espeak-ng has no voice {voice!r}. `espeak-ng --voices` lists those it has; install espeak-ng-data.")
        self.library.espeak_SetParameter(self.RATE, words_per_minute, 0)
        self.library.espeak_SetParameter(self.PITCH, pitch, 0)
        self.blocks.clear()
        self.events.clear()
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 1, 0, self.UTF8, None, None)
        if not self.blocks:
            raise KnotForcingError(f"espeak-ng said nothing for {text!r} with voice {voice}. Give it a text with words.")
        return np.concatenate(self.blocks), self.rate_hz, sorted(self.events, key=lambda event: event[0])

    def _receive(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self.blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != self.LIST_END:
            event = events[index]
            if event.type == self.PHONEME:
                # Read as raw bytes: eight of them without a terminator are possible, and a cut code point is dropped.
                name = bytes(event.id.string).split(b"\0")[0].decode("utf-8", "ignore")
                self.events.append((event.sample, name))
            index += 1
        return 0
