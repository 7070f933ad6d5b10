"""KServe's own models, unmodified: their file is run as KServe runs it, and its models are served by this server.

Alone this package imports ``kserve``, which is an extra.
"""

from kserve.metrics import PREDICT_HIST_TIME
from prometheus_client import REGISTRY

# The server's own metrics have this name as well, for every protocol; KServe's other histograms are shown beside them.
REGISTRY.unregister(PREDICT_HIST_TIME)
