"""Sounds: in requests as encoded files, or waves; in answers as files."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile
from scipy.signal import resample_poly
from servery_sdk.language import SoundFormat
from servery_sdk.protocol import InferRequest, Tensor
from servery_sdk.serving import InputError

from servery_runtime_huggingface.model.files import elements_of
from servery_runtime_huggingface.model.parameters import whole

RATE = "sampling_rate"

_MAX_SECONDS = 4 * 3600
"""Of one sound: a compressed silence of some kilobytes may be days long."""
_MAX_RATE = 384_000

_PCM_RATE = 24_000
"""Of samples without a head to say it: OpenAI's."""
_WRITTEN: Mapping[SoundFormat, tuple[str, str, tuple[int, ...]]] = {
    SoundFormat.WAV: ("WAV", "PCM_16", ()),
    SoundFormat.FLAC: ("FLAC", "PCM_16", ()),
    SoundFormat.MP3: (
        "MP3",
        "MPEG_LAYER_III",
        (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    ),
    SoundFormat.OPUS: ("OGG", "OPUS", (8000, 12_000, 16_000, 24_000, 48_000)),
    SoundFormat.PCM: ("RAW", "PCM_16", (_PCM_RATE,)),
}
"""libsndfile's names, and the rates that the format has; all where it names none."""


def sounds_of(request: InferRequest, tensor: Tensor, rate: int) -> list[Any]:
    """Return the sounds of an input, each FP32 ``[samples]`` at ``rate`` samples a second, of one channel.

    Files (BYTES ``[rows]``) are WAV, FLAC, OGG, MP3 and what else libsndfile reads; waves are ``[rows, samples]``, floats from
    -1 to 1 or INT16, at the parameter ``sampling_rate``, ``rate`` if left out.

    Raises:
        InputError: Neither; names the input and the row.
    """
    files = elements_of(tensor, "sound")
    if files is None:
        given = whole(request.parameters, RATE, rate, least=1, most=_MAX_RATE)
        return [_resampled(wave, given, rate) for wave in _waves(tensor)]
    return [_decoded(file, f"input {tensor.name!r} row {row}", rate) for row, file in enumerate(files)]


def file_of(wave: Any, rate: int, form: SoundFormat) -> bytes:
    """Return the file of a sound, FP32 ``[samples]``; at the next rate that ``form`` has, if it does not have ``rate``."""
    container, kind, rates = _WRITTEN[form]
    given = next((one for one in rates if one >= rate), rates[-1]) if rates else rate
    written = io.BytesIO()
    soundfile.write(
        written,
        np.clip(_resampled(wave, rate, given), -1, 1),
        given,
        format=container,
        subtype=kind,
        endian="LITTLE" if form is SoundFormat.PCM else "FILE",
    )
    return written.getvalue()


def _decoded(file: bytes, where: str, rate: int) -> Any:
    try:
        with soundfile.SoundFile(io.BytesIO(file)) as sound:
            if sound.frames > _MAX_SECONDS * sound.samplerate:
                raise InputError(f"{where}: longer than {_MAX_SECONDS // 3600} hours")
            wave = sound.read(dtype="float32", always_2d=True)
            given = sound.samplerate
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        known = ", ".join(sorted(soundfile.available_formats()))
        raise InputError(
            f"{where}: {len(file)} bytes that are no sound, nor base64 of one: {error}; libsndfile reads: {known}"
        ) from error
    return _checked(_resampled(wave.mean(1), given, rate), where)


def _waves(tensor: Tensor) -> Any:
    data, shape = tensor.data, list(tensor.data.shape)
    where = f"input {tensor.name!r} is {tensor.datatype} {shape}"
    if data.ndim != 2 or (data.dtype.kind != "f" and data.dtype != np.int16):
        raise InputError(
            f"{where}; the model takes sounds: files (BYTES [rows]), or waves [rows, samples] of FP32 from -1 to 1 or INT16"
        )
    waves = data.astype(np.float32)
    for wave in waves:
        _checked(wave, where)
    return waves / 32768 if data.dtype == np.int16 else waves


def _checked(wave: Any, where: str) -> Any:
    if not wave.size:
        raise InputError(f"{where}: the sound is empty")
    if not np.isfinite(wave).all():
        raise InputError(f"{where}: the wave holds NaN or infinity")
    return wave


def _resampled(wave: Any, given: int, rate: int) -> Any:
    if given == rate:
        return wave
    shared = math.gcd(given, rate)
    return resample_poly(wave, rate // shared, given // shared).astype(np.float32)
