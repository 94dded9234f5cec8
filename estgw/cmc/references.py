"""Check that controls refer to existing parts (RFC 5272 3.2.2, 6.5, 6.7, 6.8, 6.16, 6.17, 6.19; RFC 6402 2.9)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from estgw.cmc.controls import Control
from estgw.cmc.messages import BadMessage, Layer, PKIData, part_at
from estgw.cmc.values import AddExtensions, ControlsProcessed, DecryptedPOP, LraPopWitness, ModCertTemplate

Path = tuple[int, ...]


def check(tree: Sequence[Layer]) -> None:
    """Look up each reference in a request and in the requests inside it, as `messages.layers` returns them.

    Raises `BadMessage` with the control whose reference does not exist, as RFC 5272 6.5 requires, and `Malformed` for a
    control that can't be read.
    """
    by_path = {layer.path: layer.data for layer in tree}
    for layer in tree:
        for control in layer.data.controls:
            for target in _targets(control):
                if not _is_there(target, layer.path, by_path):
                    words = f"{control.words} refers to {'/'.join(map(str, target))}, which is not there"
                    at_fault = part_at((*layer.path, control.body_part_id))
                    raise BadMessage(words, (at_fault,), tree[0].data.ids, tree[0].data.controls)


def _targets(control: Control) -> Iterator[Path]:
    """The parts to which a control refers, each as a path that begins in the control's message."""
    match control.name:
        case "lraPOPWitness" | "addExtensions":
            found: LraPopWitness | AddExtensions = control.value
            start: Path = (found.data,) if found.data else ()
            yield from ((*start, request) for request in found.requests)
        case "modCertTemplate":
            change: ModCertTemplate = control.value
            start = change.data if change.data != (0,) else ()
            yield from ((*start, request) for request in change.requests)
        case "decryptedPOP":
            proof: DecryptedPOP = control.value
            yield (proof.request,)
        case "batchRequests":
            yield from ((each,) for each in control.value)
        case "authData":
            yield (control.value,)
        case "raIdentityWitness":
            yield control.value
        case "controlProcessed":
            done: ControlsProcessed = control.value
            yield from ((part,) if isinstance(part, int) else part for part in done.parts)


def _is_there(target: Path, start: Path, by_path: Mapping[Path, PKIData]) -> bool:
    """Whether a part exists; 0 is the message itself.  A part of a message that can't be read counts as existing."""
    *way, last = target
    data = by_path.get((*start, *way))
    if data is not None:
        return last == 0 or last in data.ids
    outer = by_path.get((*start, *way[:-1]))
    return outer is not None and way[-1] in outer.ids
