"""What the demo prints when it is ready: what is real, and what to try next. Every line can be pasted as it stands."""

import importlib.util
import json
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from gateway.demo.world import API_KEY, MODEL, World

QUESTION = {"role": "user", "content": "Why is the sky blue?"}


def ready(world: World, config: Path, seconds: float) -> str:
    api = f"http://127.0.0.1:{world.port}/v1"
    page = f"http://127.0.0.1:{world.admin_port}/"
    tokenport = f"{command_name()} {{}} --config {shlex.quote(str(config))}"
    body = json.dumps({"model": MODEL, "stream": True, "max_tokens": 120, "messages": [QUESTION]})
    hour = "an hour in an hour; --speed 600 makes it six seconds" if world.speed == 1 else hour_lasts(world.speed)
    return f"""\

tokenport demo: ready after {seconds:.1f} s. Ctrl-C ends everything.

  real       the tokens: a small model (SmolLM2-135M) on this CPU answers behind every region
  replayed   the power prices: markets from 2024-05-06 on, {hour}
  simulated  the distance of the regions: relays that hold bytes back
  declared   energy per token, tariffs, link prices: {config}

The page: {page}

An answer, streamed:

curl -N {api}/chat/completions \\
  -H 'Authorization: Bearer {API_KEY}' -H 'Content-Type: application/json' \\
  -d '{body}'

The same with the OpenAI SDK, in {python()}:

from openai import OpenAI
client = OpenAI(base_url="{api}", api_key="{API_KEY}")
question = [{json.dumps(QUESTION)}]
stream = client.chat.completions.create(model="{MODEL}", messages=question, max_tokens=120, stream=True)
for chunk in stream: print(chunk.choices[0].delta.content or "", end="", flush=True)

Which region answers now, and why; then what was exported:

{tokenport.format("explain")} --model {MODEL} --tenant demo
{tokenport.format("export")} --format csv
"""


def hour_lasts(speed: float) -> str:
    seconds = 3600 / speed
    return f"an hour in {seconds:.0f} seconds" if seconds < 120 else f"an hour in {seconds / 60:.0f} minutes"


def python() -> str:
    """The interpreter, and what it lacks."""
    missing = "" if importlib.util.find_spec("openai") else " (pip install openai)"
    return f"{from_here(Path(sys.executable))}{missing}"


def command_name() -> str:
    """How this installation's command is called from here."""
    beside = Path(sys.executable).with_name("tokenport")
    if not beside.exists():
        return f"{from_here(Path(sys.executable))} -m gateway"
    found = shutil.which("tokenport")
    if found is not None and Path(found).samefile(beside):
        return "tokenport"
    return from_here(beside)


def from_here(path: Path) -> str:
    """A path as one would type it: relative where it lies below the current folder."""
    with suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))
