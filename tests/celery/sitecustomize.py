"""Makes HOSTNAME the host's name in Python, as it is inside a container.

All processes of a local node share one kernel host name, and Celery names its
workers by it (`celery@%h`): without this every pod would be the same worker.
"""

import os
import socket

if "HOSTNAME" in os.environ:
    socket.gethostname = lambda name=os.environ["HOSTNAME"]: name
