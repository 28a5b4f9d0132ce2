"""The router's settings with a SQLite that does not wait for the disk: what a test of power loss must notice."""

import os

from router_project.settings import *  # noqa: F403
from router_project.settings import DATABASES

DATABASES["default"]["OPTIONS"]["init_command"] += f";PRAGMA synchronous={os.environ['CARELESS_SYNCHRONOUS']}"
