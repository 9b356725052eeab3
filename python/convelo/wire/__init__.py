"""Values and bytes: what Python objects become on each wire.

:mod:`convelo.wire.compatible` writes and reads what ``tno.mpc.communication`` sends,
:mod:`convelo.wire.second` what our own peers send each other. :class:`convelo.wire.state.State` is
what both know about registered types.
"""
