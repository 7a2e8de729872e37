"""Networks of the paper by name with exact and printed counts. Needs no torch."""

from __future__ import annotations

from dataclasses import asdict

from bneck.costs.count import count
from bneck.costs.published import PUBLISHED, published
from bneck.specs.text import resolve
from bneck.specs.zoo import NETWORKS, family
from bneck.tasks.contract import Table
from bneck.tasks.tables import matching


def zoo_table(pattern: str) -> Table:
    """Every family of the zoo and every width and resolution of it that the paper has a row for.

    Args:
        pattern: see `tasks.tables.matching`.

    Raises:
        InputError: nothing has such a name.
    """
    names = [*dict.fromkeys([*NETWORKS, *(row.network for row in PUBLISHED)])]
    lacks = "no network of the zoo is called {pattern!r}; see: bneck zoo"
    order = list(NETWORKS)
    rows, values = [], []
    for name in sorted(matching(names, pattern, str, lacks), key=lambda n: order.index(family(n))):
        costs, printed = count(resolve(name)), published(name)
        ours = [f"{costs.params / 1e6:.3f}", f"{costs.madds / 1e6:.2f}"]
        for row in printed:
            differs = row.differs(costs)
            rows.append(
                (
                    name, *ours, f"{row.params_m:g}", "-" if row.madds_m is None else f"{row.madds_m:g}",
                    "*" if differs else "",
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
