"""The parts of ``bench/soak.py``: models whose right answers are known, connections, clients, and what they found."""
