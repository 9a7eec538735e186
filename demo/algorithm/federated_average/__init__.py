"""The mean of one numeric column over the rows of many organisations.

No organisation's rows leave it: `partial` answers with a count and a sum, `central` adds them up.
"""

import pandas as pd
from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.tools.decorators import algorithm_client, data
from vantage6.algorithm.tools.exceptions import InputError
from vantage6.algorithm.tools.util import info

MINIMUM_ROWS = 5


@data(1)
def partial(df: pd.DataFrame, column: str) -> dict:
    """Count and sum of `column`; refuses a column of so few rows that a sum would tell on a person."""
    values = pd.to_numeric(df[column], errors="raise").dropna()
    if len(values) < MINIMUM_ROWS:
        raise InputError(f"{column} has fewer than {MINIMUM_ROWS} rows here")
    info(f"{len(values)} rows of {column}")
    return {"count": int(len(values)), "sum": float(values.sum())}


@algorithm_client
def central(client: AlgorithmClient, column: str) -> dict:
    """Asks every organisation of the collaboration for `partial`, and adds up what they answer."""
    organizations = [organization["id"] for organization in client.organization.list()]
    task = client.task.create(
        input_={"method": "partial", "kwargs": {"column": column}},
        organizations=organizations,
        name="partial sums",
        description=f"count and sum of {column}",
    )
    info(f"asked {len(organizations)} organisations")
    parts = client.wait_for_results(task_id=task["id"], interval=1)
    count = sum(part["count"] for part in parts)
    total = sum(part["sum"] for part in parts)
    return {"average": total / count, "count": count, "organizations": len(parts)}
