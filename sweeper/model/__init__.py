"""Loading, adapters, averaging, checkpoints, KV cache and sharding."""

import logging

# On import it warns of a CPU kernel for generation that is switched off here; see `quantized`.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
