"""What the demo runs: 200 short tasks over six pools and three queues, all of which could start at once."""

from datetime import datetime

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.operators.bash import BashOperator

# How many tasks, in which pool, with how many of its slots each, for which queue, their weight and their seconds. Most
# pools have fewer slots than there are tasks, so what is in the queues is what pools let through.
KINDS = {
    "etl": (60, "tier1_critical", 1, "default", 100, 1.5),
    "analytics": (40, "tier2_standard", 1, "default", 60, 1),
    "backfill": (25, "tier3_batch", 1, "default", 10, 2),
    "query": (20, "database_connections", 1, "default", 50, 1),
    "join": (10, "database_connections", 2, "high_memory", 50, 2),
    "call": (20, "api_calls", 1, "default", 50, 0.5),
    "batch_call": (5, "api_calls", 3, "default", 50, 1),
    "large_file": (10, "default_pool", 2, "high_memory", 50, 2),
    "train": (10, "default_pool", 1, "gpu", 50, 2),
}

with DAG(
    "tiers",
    schedule=None,
    start_date=datetime(2020, 1, 1),
    catchup=False,
    # Its pools must be there before it runs.
    is_paused_upon_creation=True,
    max_active_tasks=200,
    default_args={"weight_rule": "absolute"},
):
    for kind, (count, pool, slots, queue, weight, seconds) in KINDS.items():
        for number in range(count):
            BashOperator(
                task_id=f"{kind}{number}",
                bash_command=f"sleep {seconds}",
                pool=pool,
                pool_slots=slots,
                queue=queue,
                priority_weight=weight,
            )
