"""Networks of the paper by name with exact and printed counts. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from fnmatch import fnmatchcase

from bneck.costs.count import count
from bneck.costs.published import PUBLISHED, published
from bneck.specs.errors import InputError
from bneck.specs.text import resolve
from bneck.specs.zoo import NETWORKS, family
from bneck.tasks.contract import Table


def count_table(networks: Iterable[str]) -> Table:
    """Totals of networks by name, and as JSON values also every row's costs."""
    counted = [(name, spec := resolve(name), count(spec)) for name in networks]
    return Table(
        title="",
        columns=("network", "resolution", "params", "MAdds", "peak activations kB"),
        rows=[
            (
                name, str(spec.resolution), f"{costs.params:,}", f"{costs.madds:,}",
                f"{costs.activation_bytes / 1024:,.0f}",
            )
            for name, spec, costs in counted
        ],
        values=[
            {
                "network": name, "resolution": spec.resolution, "params": costs.params,
                "madds": costs.madds, "activation_bytes": costs.activation_bytes,
                "rows": [
                    {
                        "row": r.row, "params": r.params, "madds": r.madds,
                        "activation_bytes": r.activation_bytes,
                    }
                    for r in costs.rows
                ],
            }
            for name, spec, costs in counted
        ],
    )  # fmt: skip


def zoo_table(pattern: str) -> Table:
    """Every family of the zoo and every width and resolution of it that the paper has a row for.

    Args:
        pattern: shell-style, as "v3-small*"; a name without wildcards stands for what begins with it.

    Raises:
        InputError: nothing has such a name.
    """
    wanted = pattern if any(c in pattern for c in "*?[") else f"{pattern}*"
    names = dict.fromkeys([*NETWORKS, *(row.network for row in PUBLISHED)])
    found = [name for name in names if fnmatchcase(name, wanted)]
    if not found:
        raise InputError(f"no network of the zoo is called {pattern!r}; see: bneck zoo")
    order = list(NETWORKS)
    found.sort(key=lambda name: order.index(family(name)))
    rows, values = [], []
    for name in found:
        costs, printed = count(resolve(name)), published(name)
        ours = [f"{costs.params / 1e6:.3f}", f"{costs.madds / 1e6:.2f}"]
        for row in printed:
            differs = row.differs(costs)
            rows.append(
                (
                    name, *ours, f"{row.params_m:g}", f"{row.madds_m:g}", "*" if differs else "",
                    "-" if row.top1 is None else f"{row.top1:g}", row.source,
                    row.note if differs else "",
                )
            )  # fmt: skip
        if not printed:
            rows.append((name, *ours, "-", "-", "", "-", "", ""))
        values.append(
            {
                "network": name, "params": costs.params, "madds": costs.madds,
                "published": [{**asdict(row), "differs": row.differs(costs)} for row in printed],
            }
        )  # fmt: skip
    return Table(
        title="parameters and multiply-adds in millions; * marks printed counts that ours miss by over "
        "0.1M or 1M",
        columns=(
            "network", "params M", "MAdds M", "printed", "printed", "", "top-1 %", "where", "why",
        ),
        rows=rows,
        values=values,
        left=(0, 5, 7, 8),
    )  # fmt: skip
