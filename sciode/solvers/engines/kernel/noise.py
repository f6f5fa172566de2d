"""Brownian increments inside a kernel: the numbers of `brownian.counter`, to rounding."""

from __future__ import annotations

import math

from .design import Draft
from .expressions import names_of
from .frame import Names, Tile
from .text import Text

__all__ = ["noise_functions", "put_grid", "put_increments"]


def noise_functions(text: Text, tiled: bool) -> str:
    """Standard normals of (seed, cell, column, purpose), as `brownian.philox.normals` makes them: `gaussian`.

    Four at a time, or, for a tile, that of every channel: each hashes its block of four, and takes its own.
    """
    log, sin, cos = (f"libdevice.{f}" if text.native else f"tl.{f}" for f in ("log", "sin", "cos"))
    root = text.sqrt(f"-2.0 * {log}({{}})")
    column = "column" if tiled else "column: tl.constexpr"
    head = ["@triton.jit", f"def gaussian(seed, cell, {column}, purpose: tl.constexpr, REAL: tl.constexpr):"]
    uniform = "({}.to(REAL) + 0.5) * 2.3283064365386963e-10"
    if tiled:
        body = [
            "rest = tl.zeros_like(seed[:, None] + column).to(tl.uint32)",
            "low, high = rest + cell.to(tl.uint32)[:, None], rest + (cell >> 32).to(tl.uint32)[:, None]",
            "block = rest + (column // 4).to(tl.uint32)",
            "w0, w1, w2, w3 = tl.philox(rest.to(tl.int64) + seed[:, None], low, high, block, rest + purpose)",
            "pair, odd = (column // 2) % 2 == 1, column % 2 == 1",
            f"u, v = {uniform.format('tl.where(pair, w2, w0)')}, {uniform.format('tl.where(pair, w3, w1)')}",
            f"a = {2 * math.pi!r} * v",
            f"return {root.format('u')} * tl.where(odd, {sin}(a), {cos}(a))",
        ]
    else:
        body = [
            "low, high = cell.to(tl.uint32), (cell >> 32).to(tl.uint32)",
            "rest = tl.zeros_like(low)",
            "w0, w1, w2, w3 = tl.philox(seed, low, high, rest + column, rest + purpose)",
            f"u0, u1 = {uniform.format('w0')}, {uniform.format('w1')}",
            f"u2, u3 = {uniform.format('w2')}, {uniform.format('w3')}",
            f"r0, r1 = {root.format('u0')}, {root.format('u2')}",
            f"a0, a1 = {2 * math.pi!r} * u1, {2 * math.pi!r} * u3",
            f"return r0 * {cos}(a0), r0 * {sin}(a0), r1 * {cos}(a1), r1 * {sin}(a1)",
        ]
    return "\n".join((*head, *(f"    {line}" for line in body)))


def put_grid(draft: Draft) -> None:
    """Lines before the loop: seeds, and where the cells of the path lie."""
    text, design = draft.text, draft.design
    if design.noise != "hashed":
        return
    real = names_of(design.real)
    text.put(
        "seed = tl.load(SEEDS + lane, mask=inside, other=0)",
        "cells = tl.load(CELLS + lane * grid, mask=inside, other=0)",
        "cut = tl.load(CUT + lane * grid, mask=inside, other=0.0)",
        "anchor = tl.load(ANCHOR + lane * grid, mask=inside, other=0)",
        "share = tl.minimum(cut / ahead, 1.0)",
        f"spread = {draft.frame.wide(text.sqrt('cut * (1.0 - share)'))}.to({real})",
        f"scale = {draft.frame.wide(text.sqrt('ahead'))}.to({real})",
    )


def put_increments(draft: Draft) -> Names:
    """Lines of the Brownian increments of this step."""
    text, design, frame = draft.text, draft.design, draft.frame
    names = frame.names("dw_", design.channels) if design.channels else []
    if design.noise == "given":
        frame.load(text, names, "NOISE", f"(n * batch + lane) * {design.channels}", "active")
    if design.noise == "hashed":
        real, sign = names_of(design.real), "" if design.sign > 0 else "-"
        text.let("cell", "n" if design.sign > 0 else "anchor - 1 - n")
        _draw(draft, "z", 0)
        text.put(*(f"{name} = {sign}(z_{j} * scale)" for j, name in enumerate(names)))
        if design.sign > 0:
            text.let("ragged", "(n == cells - 1) & (cut < ahead) & active")
            with text.block("if tl.max(ragged.to(tl.int32), 0) > 0:"):
                _draw(draft, "b", 1)
                text.put(f"ratio_ = {frame.wide('share')}.to({real})", f"ragged_ = {frame.wide('ragged')}")
                for j, name in enumerate(names):
                    text.let(name, f"tl.where(ragged_, ratio_ * {name} + spread * b_{j}, {name})")
    return names


def _draw(draft: Draft, prefix: str, purpose: int) -> None:
    """Lines of standard normals, one a channel: four at a time, or all in a tile."""
    text, design = draft.text, draft.design
    end = f"{purpose}, {names_of(design.real)})"
    if isinstance(draft.frame, Tile):
        text.let(f"{prefix}_0", f"gaussian(seed, cell, column, {end}")
        return
    for column in range(-(-design.channels // 4)):
        four = ", ".join(f"{prefix}_{4 * column + i}" for i in range(4))
        text.put(f"{four} = gaussian(seed, cell, {column}, {end}")
