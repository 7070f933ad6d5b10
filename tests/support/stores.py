"""Make the stores ready that tests read from, ahead of them: their time limit is not meant for builds of some minutes."""

import azurite
import versitygw

for store in (versitygw, azurite):
    try:
        print(f"{store.__name__}: {store.program()}")
    except store.Unavailable as reason:
        print(f"{store.__name__}: skipped: {reason}")
