"""JAX: batches as arrays on a device, or laid out over several."""

from .loader import JaxLoader

__all__ = ["JaxLoader"]
