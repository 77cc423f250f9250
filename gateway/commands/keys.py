"""`tokenport keys new`: make an API key. The gateway only ever sees and stores its hash."""

import hashlib
import secrets
from argparse import Namespace


def run(arguments: Namespace) -> int:
    key = "tp-" + secrets.token_urlsafe(32)
    print(f"key   {key}")
    print(f"hash  sha256:{hashlib.sha256(key.encode()).hexdigest()}")
    print("Give the key to its user now; it cannot be shown again. Put the hash under [[tenants]] keys.")
    return 0
