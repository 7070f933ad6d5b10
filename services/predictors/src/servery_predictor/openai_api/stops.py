"""Ends a text where a stop text begins. Pure: pieces in, pieces out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from servery_sdk.language import FinishReason, Piece, Token


class Stops:
    """Watches one text for ``stops``, and holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self._tokens: list[Token] = []

    def pass_on(self, piece: Piece) -> Piece:
        """Return what may be told now: ``piece``, with what was held back before it.

        The tokens of a piece are told as soon as the text is whose part they are; those behind a stop never.
        """
        if not self._stops:
            return piece
        text = self._held + piece.text
        self._tokens += piece.tokens
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at = min(found)
            return replace(piece, text=text[:at], tokens=self._told(at), finish=FinishReason.STOP)
        keep = 0 if piece.finish is not None else max(_overlap(text, stop) for stop in self._stops)
        told = len(text) - keep
        self._held = text[told:]
        return replace(piece, text=text[:told], tokens=self._told(told) if keep else self._all())

    def _all(self) -> tuple[Token, ...]:
        tokens, self._tokens = tuple(self._tokens), []
        return tokens

    def _told(self, characters: int) -> tuple[Token, ...]:
        """Take the tokens that lie before ``characters``; one that lies across is kept."""
        count = 0
        while count < len(self._tokens) and characters >= len(self._tokens[count].text):
            characters -= len(self._tokens[count].text)
            count += 1
        tokens, self._tokens = tuple(self._tokens[:count]), self._tokens[count:]
        return tokens


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of ``text`` may begin ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
