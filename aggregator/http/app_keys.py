"""Typed keys of the aiohttp application."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from aggregator.http.certificates import Certificates
from aggregator.http.guard.guard import Guard
from aggregator.run.run import Run
from aggregator.settings.base_model import BaseFile
from aggregator.store.store import Store
from aggregator.store.uploads import Uploads

RUN = web.AppKey("run", Run)
GUARD = web.AppKey("guard", Guard)
STORE = web.AppKey("store", Store)
UPLOADS = web.AppKey("uploads", Uploads)
OPERATOR_HASH = web.AppKey("operator_hash", str)
BASE_FOLDER = web.AppKey("base_folder", Path)
BASE_FILES: web.AppKey[Mapping[str, BaseFile]] = web.AppKey("base_files", Mapping)
CERTIFICATES = web.AppKey("certificates", Certificates)
WORKER: web.AppKey[asyncio.Task[None]] = web.AppKey("worker", asyncio.Task)
