"""Networks by name with exact and printed counts, and what is published about them. Needs no torch."""

from __future__ import annotations

from dataclasses import asdict

from bneck.costs.count import count
from bneck.costs.published import PUBLISHED, published
from bneck.imports.published import KNOWN
from bneck.specs.text import resolve
from bneck.specs.zoo import NETWORKS, family
from bneck.tasks.contract import Table
from bneck.tasks.tables import matching

LACKS = "no network of the zoo is called {pattern!r}; see: bneck zoo"


def zoo_table(pattern: str) -> Table:
    """Every family of the zoo and every width and resolution of it that the paper has a row for.

    Args:
        pattern: see `tasks.tables.matching`.

    Raises:
        InputError: nothing has such a name.
    """
    names = [*dict.fromkeys([*NETWORKS, *(row.network for row in PUBLISHED)])]
    order = list(NETWORKS)
    rows, values = [], []
    for name in sorted(matching(names, pattern, str, LACKS), key=lambda n: order.index(family(n))):
        costs, printed = count(resolve(name)), published(name)
        params, madds = f"{costs.params / 1e6:.3f}", f"{costs.madds / 1e6:.2f}"
        for row in printed:
            differs = row.differs(costs)
            rows.append(
                (
                    name, params, f"{row.params_m:g}",
                    madds, "-" if row.madds_m is None else f"{row.madds_m:g}", "*" if differs else "",
                    "-" if row.top1 is None else f"{row.top1:g}", row.source,
                    row.note if differs else "",
                )
            )  # fmt: skip
        if not printed:
            rows.append((name, params, "-", madds, "-", "", "-", "", ""))
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
            "network", "params M", "printed", "MAdds M", "printed", "", "top-1 %", "where", "why",
        ),
        rows=rows,
        values=values,
        left=(0, 5, 7, 8),
    )  # fmt: skip


def published_table(pattern: str) -> Table:
    """Every published top-1 of the zoo's networks on ImageNet, the best first for each network.

    Args:
        pattern: see `tasks.tables.matching`.

    Raises:
        InputError: nothing is published about such a name.
    """
    found = [(one.network, one.top1, _publisher(one.name), one.name, one.license) for one in KNOWN]
    # Printed beside weights that are on the list too, a score is one entry.
    there = {(network, source) for network, _, source, *_ in found}
    found += [
        (row.network, row.top1, row.source, "", "")
        for row in PUBLISHED
        if row.top1 is not None and (row.network, row.source) not in there
    ]
    lacks = "nothing is published about a network called {pattern!r}; see: bneck zoo --published"
    order = {name: number for number, name in enumerate(NETWORKS)}
    chosen = matching(found, pattern, lambda one: one[0], lacks)
    names = sorted({one[0] for one in chosen}, key=lambda name: (order[family(name)], name))
    rows, values = [], []
    for name in names:
        costs = count(resolve(name))
        for _, top1, source, weights, license in sorted(
            (one for one in chosen if one[0] == name), key=lambda one: -one[1]
        ):
            rows.append(
                (
                    name, f"{costs.params / 1e6:.3f}", f"{costs.madds / 1e6:.2f}", f"{top1:g}", source,
                    weights or "-", license or "-",
                )
            )  # fmt: skip
            values.append(
                {
                    "network": name, "params": costs.params, "madds": costs.madds, "top1": top1,
                    "source": source, "weights": weights or None, "license": license or None,
                }
            )  # fmt: skip
    return Table(
        title="published top-1 on ImageNet; parameters and multiply-adds in millions; weights as --from and "
        "bneck import take them",
        columns=("network", "params M", "MAdds M", "top-1 %", "source", "weights", "license"),
        rows=rows,
        values=values,
        left=(0, 4, 5, 6),
    )


def _publisher(weights: str) -> str:
    return "timm" if weights.startswith("timm/") else "torchvision"
