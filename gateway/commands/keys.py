"""`tokenport keys`: make an API key, or show the public half of the key that seals the ledger.

The gateway only ever sees and stores an API key's hash. The sealing key is made by the gateway at its first start, and
never here: whoever types this may be another user than the one the gateway runs as.
"""

import hashlib
import secrets
from argparse import Namespace
from pathlib import Path

from gateway.commands.output import fail, print_rows, report_problems, settings_of
from gateway.config import ConfigError
from gateway.ledger.sealkey import KEY_NAME, SealKeyError, load_key, public_hex


def run(arguments: Namespace) -> int:
    return _new() if arguments.action == "new" else _seal(arguments)


def _new() -> int:
    key = "tp-" + secrets.token_urlsafe(32)
    print(f"key   {key}")
    print(f"hash  sha256:{hashlib.sha256(key.encode()).hexdigest()}")
    print("Give the key to its user now; it cannot be shown again. Put the hash under [[tenants]] keys.")
    return 0


def _seal(arguments: Namespace) -> int:
    try:
        data_dir: Path = settings_of(arguments).gateway.data_dir
        public_key = public_hex(load_key(data_dir))
    except ConfigError as error:
        return report_problems(error)
    except FileNotFoundError:
        return fail(f"{data_dir / KEY_NAME}: there is none yet; the gateway makes it at its first start", 1)
    except SealKeyError as error:
        return fail(str(error), 1)
    print_rows([{"public_key": public_key}], ("public_key",), arguments.format)
    return 0
