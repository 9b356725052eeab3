"""The APIs of ``tno.mpc.communication``, 4.8 and 5.0, over convelo's transport."""
