"""Whether LightGBM's model file is whole.

LightGBM reads trees in parallel by the sizes that the head states; where these lie, it ends the process.

Source: LightGBM src/boosting/gbdt_model_text.cpp (LoadModelFromString).
"""

from __future__ import annotations

import itertools

_END = b"end of trees"
_SIZES = b"\ntree_sizes="


class Broken(ValueError):
    """Not LightGBM's text, or cut off; says where."""


def check(content: bytes) -> None:
    """Compare the trees of a model file with the sizes that its head states.

    Raises:
        Broken: They differ.
    """
    head, separator, trees = content.partition(b"\n\n")
    if not head.startswith(b"tree\n") or not separator:
        raise Broken('it does not start with the line "tree" and a head')
    _, stated, rest = head.partition(_SIZES)
    if not stated:
        # Written before sizes were; LightGBM then reads one tree after the other.
        return
    sizes = rest.partition(b"\n")[0].split()
    if not all(size.isdigit() for size in sizes):
        raise Broken("tree_sizes holds what is no number")
    starts = list(itertools.accumulate(map(int, sizes), initial=0))
    for index, start in enumerate(starts[:-1]):
        if not trees.startswith(b"Tree=%d\n" % index, start):
            raise Broken(f"tree {index} of {len(sizes)} is not where the head says; the file is cut off or was changed")
    if not trees.startswith(_END, starts[-1]):
        raise Broken(f'"{_END.decode()}" does not follow the last of {len(sizes)} trees; the file is cut off')
