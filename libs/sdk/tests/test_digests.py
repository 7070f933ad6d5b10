from __future__ import annotations

import pytest
from servery_sdk.digests import Digest, DigestAlgorithm, digest_of, hasher

KNOWN = {
    DigestAlgorithm.CRC32C: "e3069283",
    DigestAlgorithm.CRC32: "cbf43926",
    DigestAlgorithm.MD5: "25f9e794323b453885f5181f1b624d0b",
    DigestAlgorithm.SHA1: "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    DigestAlgorithm.SHA256: "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
}
"""Of ``123456789``, as every table of check values has them."""


@pytest.mark.parametrize("algorithm", KNOWN)
def test_sum_is_the_known_one(algorithm: DigestAlgorithm) -> None:
    assert digest_of(algorithm, b"123456789") == Digest.of_hex(algorithm, KNOWN[algorithm])


@pytest.mark.parametrize("algorithm", DigestAlgorithm)
def test_pieces_of_a_buffer_sum_up_to_the_whole(algorithm: DigestAlgorithm) -> None:
    """A buffer that bytes are received into may be written to."""
    buffer = memoryview(bytearray(b"123456789"))
    taken = hasher(algorithm)
    taken.update(buffer[:4])
    taken.update(bytearray(buffer[4:]))
    assert Digest(algorithm, taken.digest()) == digest_of(algorithm, b"123456789")
