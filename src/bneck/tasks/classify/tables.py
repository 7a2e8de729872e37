"""Networks of the paper by name with exact and printed counts. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from bneck.costs.count import count
from bneck.runs.networks import zoo
from bneck.specs.text import resolve
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
