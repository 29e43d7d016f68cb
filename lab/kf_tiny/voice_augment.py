"""What happens to a voice on its way to the microphone: rooms, other loudness, noise, clicks. The mouth that spoke does not change.

Knows nothing of words or mouths; the same generator gives the same disturbance.
"""

import numpy as np

from .speech import ACTIVE_RMS, SAMPLE_RATE_HZ

LOUDNESS_DECIBELS = 10.0  # up or down


def disturb(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A voice at 16 kHz, [samples] float32, as another microphone in another place might hear it."""
    sound = samples.astype(np.float32)
    if generator.random() < 0.25:
        sound = _room(sound, generator)
    if generator.random() < 0.4:
        sound = _tilt(sound, generator)
    if generator.random() < 0.4:
        sound = sound + _noise(len(sound), generator)
    if generator.random() < 0.2:
        sound = _clicks(sound, generator)
    if generator.random() < 0.85:
        sound = sound * 10 ** (generator.uniform(-LOUDNESS_DECIBELS, LOUDNESS_DECIBELS) / 20)
    return sound.clip(-1, 1).astype(np.float32)


def _room(sound: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Echoes that die away within 0.1 .. 0.4 s."""
    seconds = generator.uniform(0.1, 0.4)
    length = int(seconds * SAMPLE_RATE_HZ)
    tail = generator.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= generator.uniform(0.1, 0.5) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    size = len(sound) + length
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]


def _tilt(sound: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Brighter or duller: up to 4 dB per octave about 1 kHz."""
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ)
    octaves = np.log2(hertz.clip(60, 7600) / 1000)
    return np.fft.irfft(spectrum * 10 ** (generator.uniform(-4, 4) * octaves / 20), len(sound))


def _noise(length: int, generator: np.random.Generator) -> np.ndarray:
    """A hiss or a rumble, 20 .. 50 dB below the voice."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    spectrum /= (1 + np.arange(len(spectrum))) ** generator.uniform(0, 0.6)
    noise = np.fft.irfft(spectrum, length)
    return noise * (ACTIVE_RMS * 10 ** (-generator.uniform(20, 50) / 20) / noise.std())


def _clicks(sound: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A few samples that jump."""
    places = generator.integers(0, len(sound), generator.integers(1, 8))
    clicked = sound.copy()
    clicked[places] += generator.uniform(0.2, 0.9, len(places)) * generator.choice((-1, 1), len(places))
    return clicked
