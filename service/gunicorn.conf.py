"""gunicorn's configuration, all of it from `service.settings`; `muelle serve` starts gunicorn with it."""

import importlib
import os

# Imported here, in the arbiter, so that the workers share these pages; models are loaded in the workers, so that a
# reload (SIGHUP) loads them anew.
import flask  # noqa: F401
import numpy as np  # noqa: F401

from service.hooks import Hooks
from service.logs import GunicornLogger, log_config
from service.settings import Settings

# ONNX Runtime's official builds send telemetry to Microsoft unless told not to before they are imported. Besides, the
# thread that sends it doesn't survive the fork, and a worker that ends waits for it, forever.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
importlib.import_module("onnxruntime")

_settings = Settings.from_environ(os.environ)
_hooks = Hooks(_settings)

# What is served is made by service.server, gunicorn only insists on a name.
wsgi_app = "service.wsgi:build"
bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
workers = _settings.workers
threads = _settings.threads
worker_class = "service.worker.Worker"
# A worker that stops telling the arbiter that it lives is replaced after as long again as a request may take.
timeout = max(10, round(_settings.request_timeout_seconds))
graceful_timeout = _settings.graceful_timeout_seconds
keepalive = _settings.keepalive_seconds
max_requests = _settings.max_requests
max_requests_jitter = _settings.max_requests_jitter
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
logger_class = GunicornLogger
logconfig_dict = log_config(_settings.log_level)
control_socket_disable = True

on_starting = _hooks.on_starting
pre_fork = _hooks.pre_fork
post_fork = _hooks.post_fork
post_worker_init = _hooks.post_worker_init
worker_exit = _hooks.worker_exit
child_exit = _hooks.child_exit
