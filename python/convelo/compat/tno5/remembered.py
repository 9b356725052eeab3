"""The 5.0 API for programs that make their own ``ssl.SSLContext`` objects.

Importing this module calls :func:`convelo.compat.tno5.remember_ssl_files`, so import it before the
contexts are made. Otherwise it is :mod:`convelo.compat.tno5`.
"""

from convelo.compat.tno5 import *  # noqa: F403
from convelo.compat.tno5 import __version__ as __version__
from convelo.compat.tno5 import remember_ssl_files

_remembering = remember_ssl_files()
