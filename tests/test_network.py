"""Nothing is asked of anybody, and nothing is left outside of the checkout.

Declared exceptions: `ingest.source: kaggle`, DVC remotes, `make audit` and set-up.
"""

import shutil
import sys
from pathlib import Path

import pytest

from tests import sandbox
from tests.conftest import lungs, png, radiography_tree
from tests.plan import Plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sandbox.is_allowed(), reason="this user may make no namespaces (unshare)"
    ),
]

STAGES = ("ingest", "validate", "split", "train", "evaluate", "gate", "export")
MODEL = "data/export/unet.onnx"
LOOK_UP = "import socket; socket.getaddrinfo('telemetry.example.org', 443)"
# What a browser does with the server, and then Ctrl-C.
SERVE = f"""
import http.client, re, signal, subprocess, time
words = ["lungfield", "serve", "{MODEL}", "--port", "0"]
server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
port = int(re.search(r":(\\d+)/", server.stdout.readline())[1])
for method, path, body in (
    ("GET", "/", None), ("GET", "/docs", None), ("GET", "/metrics", None),
    ("POST", "/predict", open("film.png", "rb").read()),
):
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request(method, path, body)
    answer = client.getresponse()
    assert answer.status == 200, answer.read()
time.sleep({{seconds}})
server.send_signal(signal.SIGINT)
assert server.wait(20) == 0
"""
SCHEDULE = """
import signal, subprocess, time
flows = subprocess.Popen(["lungfield", "schedule"])
time.sleep(60)
assert flows.poll() is None
flows.send_signal(signal.SIGINT)
assert flows.wait(60) in (0, 130)
"""
KERAS = "import stages, keras; keras.models.load_model('data/model/unet.keras')"
PYTHON = ("python", "-c")
QUICK = {
    "predict": ("lungfield", "predict", MODEL, "film.png", "-o", "out"),
    "score": ("lungfield", "score", MODEL, "SET"),
    "serve": (*PYTHON, SERVE.format(seconds=3)),
    "validate": ("python", "-m", "stages.validate"),  # Great Expectations, Matplotlib
    "evaluate": ("python", "-m", "stages.evaluate"),  # TensorFlow, Keras
    "kaggle": (*PYTHON, "from stages.datasets.sources import kaggle; import kagglehub"),
}
NIGHTLY = {
    **{name: ("python", "-m", f"stages.{name}") for name in STAGES},
    "repro": ("dvc", "repro", "--force"),
    "serve for a minute": (*PYTHON, SERVE.format(seconds=60)),
    "schedule": (*PYTHON, SCHEDULE),
    "review": ("lungfield", "review", "HEAD"),
    "provenance": ("lungfield", "provenance", MODEL),
    "experiments": ("lungfield", "experiments"),
    "folds": ("lungfield", "folds", "--folds", "2", "--epochs", "1"),
    "doctor": ("lungfield", "doctor"),
    "verify": ("lungfield", "verify"),
    "keras": (*PYTHON, KERAS),
    **{
        f"{name} as the model card loads it": ("python", f"{name}.py")
        for name in ("onnx_runtime", "lite_rt", "saved_model")
    },
}


@pytest.fixture(scope="module")
def checkout(finished, tmp_path_factory):
    """A finished run, a film, labelled data, and the programs of the model card."""
    from stages.export import card

    plan = Plan.at(finished).copy(tmp_path_factory.mktemp("network") / "plan")
    (plan.root / "film.png").write_bytes(png(lungs(1, image_size=60)[0]))
    radiography_tree(plan.root / "SET", {"COVID": 2})
    for name in ("onnx_runtime", "lite_rt", "saved_model"):
        parts = ("read_film.py", f"{name}.py", "write_mask.py")
        text = "\n".join((card.SNIPPETS / part).read_text("utf-8") for part in parts)
        program = card.with_constants(text, {"SIZE": 32})
        (plan.root / f"{name}.py").write_text(program, "utf-8")
    for name in ("unet.onnx", "unet.tflite"):
        shutil.copy(plan.root / "data" / "export" / name, plan.root)
    shutil.copytree(plan.root / "data/export/saved_model", plan.root / "saved_model")
    return plan.root


def check(command: tuple[str, ...], checkout: Path, folder: Path) -> None:
    found = sandbox.run(list(command), cwd=checkout, folder=folder / "sandbox")
    assert found.returncode in (0, 1), found.output[-3000:]
    assert "Traceback" not in found.output, found.output[-3000:]
    assert found.asked == []
    assert found.left == []


def test_the_sandbox_sees_what_it_looks_for(tmp_path):
    code = (
        "import pathlib\n"
        "pathlib.Path('~/.cache').expanduser().mkdir()\n"
        "pathlib.Path('/var/tmp/left').touch()\n"
    )
    command = [sys.executable, "-c", code + LOOK_UP]
    found = sandbox.run(command, cwd=tmp_path, folder=tmp_path / "sandbox")
    assert found.returncode == 1
    assert set(found.asked) == {"telemetry.example.org"}
    home = tmp_path / "sandbox" / "home"
    assert found.left == [str(home / ".cache"), "/var/tmp/left"]


@pytest.mark.parametrize("name", QUICK)
def test_asks_and_leaves_nothing(name, checkout, tmp_path):
    check(QUICK[name], checkout, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NIGHTLY)
def test_every_other_entry_point_asks_and_leaves_nothing(name, checkout, tmp_path):
    check(NIGHTLY[name], checkout, tmp_path)
