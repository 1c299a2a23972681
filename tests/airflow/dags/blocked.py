"""What the tests run: more tasks than their pools let run, and a sensor that pokes."""

from datetime import datetime

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.sensors.bash import BashSensor
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.operators.bash import BashOperator
    from airflow.sensors.bash import BashSensor

with DAG(
    "blocked",
    schedule=None,
    start_date=datetime(2020, 1, 1),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_tasks=50,
):
    # Tier, number of tasks, slots of each, weight, queue.
    for pool, count, slots, weight, queue in (
        ("tier1_critical", 8, 1, 100, "wide"),
        ("tier2_standard", 3, 2, 50, "wide"),
        ("tier3_batch", 6, 1, 10, "narrow"),
    ):
        for number in range(count):
            BashOperator(
                task_id=f"{pool}{number}",
                bash_command="sleep {{ dag_run.conf.get('seconds', 5) }}",
                pool=pool,
                pool_slots=slots,
                priority_weight=weight,
                weight_rule="absolute",
                queue=queue,
            )
    BashSensor(
        task_id="poke",
        bash_command="test -e {{ dag_run.conf['file'] }}",
        mode="poke",
        poke_interval=1,
        timeout=600,
        pool="waiting",
        queue="wide",
    )
