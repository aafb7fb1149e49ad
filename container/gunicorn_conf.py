"""gunicorn's configuration: threads that share one model, which a worker loads after the fork."""

from __future__ import annotations

import os

from container.environment import ServeSettings
from container.serving import SLOTS

_LOADING_SECONDS = 240  # as long as the platform waits for the first /ping

_settings = ServeSettings.read()

bind = f"0.0.0.0:{_settings.port}"
loglevel = _settings.log_level
worker_class = "gthread"
workers = _settings.workers
threads = SLOTS + 4  # what no inference can hold stays free for /ping and for refusals

# A worker is replaced when its main loop is silent for this long. The loop starts after the model has been loaded.
timeout = max(_settings.timeout, _LOADING_SECONDS)
graceful_timeout = 25  # the platform kills 30 seconds after SIGTERM

control_socket_disable = True
if os.access("/dev/shm", os.W_OK):
    worker_tmp_dir = "/dev/shm"  # the heartbeat must not wait for a busy disk
