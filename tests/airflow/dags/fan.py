"""What the tests run: tasks that take time, on two queues."""

from datetime import datetime

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.operators.bash import BashOperator

with DAG(
    "fan",
    schedule=None,
    start_date=datetime(2020, 1, 1),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_tasks=50,
):
    for queue, count in (("wide", 8), ("narrow", 2)):
        for number in range(count):
            BashOperator(
                task_id=f"{queue}{number}",
                bash_command="sleep {{ dag_run.conf.get('seconds', 5) }}",
                queue=queue,
            )
