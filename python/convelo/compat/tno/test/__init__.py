"""What tests of programs for ``tno.mpc.communication`` 4.8 import from its ``test`` package.

The genuine package deprecated these fixtures in favour of those that :mod:`convelo.testing` offers
to every test; they are here for test suites that still import them. They use free ports, and make
certificates for each test.
"""

from convelo.compat.tno.test.pool_fixtures_http import event_loop as event_loop
from convelo.compat.tno.test.pool_fixtures_http import fixture_pool_http_2p as fixture_pool_http_2p
from convelo.compat.tno.test.pool_fixtures_http import fixture_pool_http_3p as fixture_pool_http_3p
from convelo.compat.tno.test.pool_fixtures_http import fixture_pool_http_4p as fixture_pool_http_4p
from convelo.compat.tno.test.pool_fixtures_http import fixture_pool_http_5p as fixture_pool_http_5p
from convelo.compat.tno.test.pool_fixtures_http import (
    fixture_pool_https_2p as fixture_pool_https_2p,
)
from convelo.compat.tno.test.pool_fixtures_http import (
    fixture_pool_https_3p as fixture_pool_https_3p,
)
from convelo.compat.tno.test.pool_fixtures_http import (
    fixture_pool_https_3p_certs_as_id as fixture_pool_https_3p_certs_as_id,
)
from convelo.compat.tno.test.pool_fixtures_http import (
    fixture_pool_https_4p as fixture_pool_https_4p,
)
from convelo.compat.tno.test.pool_fixtures_http import (
    fixture_pool_https_5p as fixture_pool_https_5p,
)
