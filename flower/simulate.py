"""The federation on this machine, without a network: python flower/simulate.py [key=value …] runs the app in this
folder with Flower's own engine (on Ray), and writes the common model and the reports to the folder ``out``.

It starts what a deployment has: a SuperLink, to which the command line hands the app, and one node a client; all of it
listens on 127.0.0.1 alone and ends with this command. Keys are those of ``[tool.flwr.app.config]`` in pyproject.toml.
Telemetry of Flower and Ray is off.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

APP = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
PATIENCE = 60.0  # seconds, for the SuperLink to start


def settings(changed: Mapping[str, object]) -> dict:
    """The app's settings with some changed. Raises ValueError for an unknown name or a value of another kind."""
    found = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    for name, value in changed.items():
        if name not in found:
            raise ValueError(f"{name}: unknown; choose from {', '.join(found)}")
        if type(value) is not type(found[name]):
            raise ValueError(f"{name}: {value!r}; a value like {found[name]!r} is needed")
        found[name] = value
    return found


def environment(home: Path) -> dict[str, str]:
    """What the processes see: this tree's package, no telemetry, a home of their own."""
    path = os.pathsep.join(filter(None, [str(APP.parent), os.environ.get("PYTHONPATH")]))
    off = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    bin_first = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    return os.environ | off | {"FLWR_HOME": str(home), "PYTHONPATH": path, "PATH": bin_first, "OMP_NUM_THREADS": "1"}


@contextmanager
def superlink(home: Path, env: Mapping[str, str]) -> Iterator[str]:
    """A SuperLink for simulations, in memory, on a free port of this machine: its address. Raises RuntimeError where
    none starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(BIN / "flower-superlink"), "--insecure", "--simulation", "--disable-runtime-dependency-installation",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with (home / "superlink.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + PATIENCE
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the SuperLink does not start:\n{(home / 'superlink.log').read_text()}")
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def simulate(stream: bool = True, **changed: object) -> tuple[Path, list[dict]]:
    """Run the app once, with settings changed (``lr=0.003``, ``weight_decay=1.0``): the folder that holds its
    ``model.npz``, and its reports. stream: show its log. Raises RuntimeError where the run fails."""
    config = settings({name.replace("_", "-"): value for name, value in changed.items()})
    config["out"] = str(Path(config["out"]).resolve())
    reports = Path(config["out"], "reports.json")
    reports.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="flower-") as home:
        env = environment(Path(home))
        chosen = "\n".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in config.items())
        Path(home, "run.toml").write_text(chosen, encoding="utf-8")
        with superlink(Path(home), env) as address:
            Path(home, "config.toml").write_text(f'[superlink.here]\naddress = "{address}"\ninsecure = true\n')
            command = [
                str(BIN / "flwr"), "run", str(APP), "here", "--stream", "--run-config", str(Path(home, "run.toml")),
                "--federation-config", f"num-supernodes={config['clients']} client-resources-num-cpus=1",
            ]  # fmt: skip
            done = subprocess.run(
                command, env=env, stdout=None if stream else subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        if done.returncode or not reports.exists():
            raise RuntimeError(f"the federation did not finish (exit status {done.returncode}):\n{done.stdout or ''}")
    return Path(config["out"]), json.loads(reports.read_text(encoding="utf-8"))


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    kinds = settings({})
    typed = {name: type(kinds[name])(value) if name in kinds else value for name, value in given.items()}
    out, found = simulate(**{name.replace("-", "_"): value for name, value in typed.items()})
    print(f"\nThe common model is in {out / 'model.npz'}. Reports: {len(found)}")
    for one in found:
        print(f"  round {one['round']}, client {one['client']}: {one['reason']}")
