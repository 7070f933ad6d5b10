"""What TorchServe's handlers import from TorchServe, for machines without it. Named as TorchServe names it.

Source: TorchServe, "Custom service" and "Default handlers".
"""

__version__ = "0.12.0"
"""The version of TorchServe whose handlers this serves."""
