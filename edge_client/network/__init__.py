"""The line to the server: calls, uploads and downloads, and what to make of a line that fails.

aiohttp reads the system's authorities twice when it is imported: 2.6 MiB, which a board that has pinned its server's
certificate never asks. So it is imported here, before anything of this package, without them; the connection that
needs authorities reads them itself.
"""

import os
import ssl

_PATHS = ssl.get_default_verify_paths()
_NAMES = (_PATHS.openssl_cafile_env, _PATHS.openssl_capath_env)
"""The environment's names for a file and a folder of authorities, as OpenSSL was built with."""

_GIVEN = {name: os.environ[name] for name in _NAMES if name in os.environ}
os.environ.update(dict.fromkeys(_NAMES, os.devnull))
try:
    import aiohttp.connector  # noqa: F401 (for what it does not read)
finally:
    for _name in _NAMES:
        del os.environ[_name]
    os.environ.update(_GIVEN)
