"""The snippets of the model card find the mask, as `Segmenter` does; other runtimes."""

import json
import shutil
import subprocess
from functools import partial
from http.server import (
    BaseHTTPRequestHandler,
    SimpleHTTPRequestHandler,
    ThreadingHTTPServer,
)
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest

from benchmarks.benches import runtimes
from stages.core import canonical
from stages.core.params import parse_params
from stages.export import card, litert, onnx_file, saved_model
from stages.export.network import folded, without_standardisation
from stages.inference import Segmenter
from stages.nn.inference import predictor, probabilities
from tests.conftest import TINY, lungs, png, with_overrides
from tests.test_export import network

SIZE = 32
SIDES = (75, 45, 20)  # of films; one is smaller than the network's input


@pytest.fixture(scope="module")
def model(shipped_values):
    return network(parse_params(with_overrides(shipped_values, TINY)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """An exported network and three films."""
    folder = tmp_path_factory.mktemp("snippets")
    core, epsilon = without_standardisation(folded(model))
    onnx_file.write(
        probabilities(core), folder / "unet.onnx", facts={}, epsilon=epsilon
    )
    saved_model.write(probabilities(model), folder / "saved_model", facts={})
    litert.write(probabilities(model), folder / "unet.tflite", facts={})
    model.save(folder / "unet.keras")
    canonical.keras_archive(folder / "unet.keras")
    for side in SIDES:
        (folder / f"{side}.png").write_bytes(png(lungs(9, image_size=side)[0]))
    return folder


@pytest.fixture
def films(folder, tmp_path, monkeypatch):
    """A copy of that folder to work in; the films with the masks to find."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    segment = Segmenter("unet.onnx")
    return {name: segment(name).mask for name in (f"{side}.png" for side in SIDES)}


def snippet(name: str) -> str:
    text = (card.SNIPPETS / name).read_text("utf-8")
    return card.with_constants(text, {"SIZE": SIZE})


def check(films, run) -> None:
    """Runs a program on film.png, which writes mask.png."""
    for name, mask in films.items():
        shutil.copy(name, "film.png")
        run()
        np.testing.assert_array_equal(cv2.imread("mask.png", 0) > 0, mask)


class Serving(BaseHTTPRequestHandler):
    """Answers as TensorFlow Serving's REST interface does."""

    def do_POST(self) -> None:
        assert self.path == "/v1/models/unet:predict"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        images = np.array(body["instances"], np.float32)
        prob = saved_model.load(Path("saved_model"))(images)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"predictions": prob.tolist()}).encode())


@pytest.fixture
def server(request, films):
    """Answers on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), request.param) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("name", ["onnx_runtime", "saved_model", "lite_rt"])
def test_python(films, name):
    parts = map(snippet, ("read_film.py", f"{name}.py", "write_mask.py"))
    code = "\n".join(parts)
    check(films, lambda: exec(code, {}))


@pytest.mark.parametrize("server", [Serving], indirect=True)
def test_tensorflow_serving(films, server):
    parts = map(snippet, ("read_film.py", "serving.py", "write_mask.py"))
    code = "\n".join(parts).replace("127.0.0.1:8501", server)
    check(films, lambda: exec(code, {}))


PAGE = """
<script type="importmap">{"imports": {"onnxruntime-web":
"./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs"}}</script>
<script type="module">
import * as ort from "onnxruntime-web";
import { read, segment } from "./browser.mjs";
globalThis.run = async (name) => {
  const session = await ort.InferenceSession.create("unet.onnx");
  const file = await (await fetch(name)).blob();
  return [...await segment(session, await read(file))];
};
</script>
"""


@pytest.mark.nightly
@pytest.mark.browser
@pytest.mark.parametrize(
    "server", [partial(SimpleHTTPRequestHandler, directory=".")], indirect=True
)
def test_javascript(films, server, browser):
    words = ["npm", "install", "--ignore-scripts", "onnxruntime-web@1.30.0"]
    if not shutil.which("npm") or subprocess.run(words, timeout=300).returncode:
        pytest.skip("npm is not installed or its registry does not answer")
    Path("browser.mjs").write_text(snippet("browser.mjs"), "utf-8")
    Path("page.html").write_text(PAGE, "utf-8")
    page = browser.new_page()
    page.goto(f"http://{server}/page.html")
    page.wait_for_function("() => 'run' in globalThis")
    for name, mask in films.items():
        found = np.array(page.evaluate(f"run('{name}')"), np.uint8)
        np.testing.assert_array_equal(found.reshape(mask.shape) > 0, mask)


@pytest.mark.nightly
def test_cpp(films):
    Path("opencv.cpp").write_text(snippet("opencv.cpp"), "utf-8")
    command = "g++ opencv.cpp -o segment $(pkg-config --cflags --libs opencv4)"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode and "opencv2/dnn.hpp: No such" in done.stderr:
        pytest.skip("OpenCV's headers are not installed (libopencv-dev)")
    assert done.returncode == 0, done.stderr
    check(films, lambda: subprocess.run(["./segment"], check=True))


@pytest.mark.nightly
@pytest.mark.parametrize("flip_tta", [False, True])
@pytest.mark.parametrize("architecture", ["unet", "attention_unet", "residual_unet"])
def test_opencv_reads_every_network(shipped_values, tmp_path, architecture, flip_tta):
    changed = TINY | {"train.architecture": architecture}
    model = network(parse_params(with_overrides(shipped_values, changed)))
    core, epsilon = without_standardisation(folded(model))
    core = probabilities(core, flip_tta=flip_tta)
    onnx_file.write(core, tmp_path / "unet.onnx", facts={}, epsilon=epsilon)
    predict = onnx_file.load_in_opencv(tmp_path / "unet.onnx")
    images = np.random.default_rng(3).random((3, SIZE, SIZE, 1), np.float32)
    wanted = predictor(model, flip_tta=flip_tta)(images)
    assert wanted.std() > 0.001
    np.testing.assert_allclose(predict(images), wanted, atol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("name", runtimes.RUNTIMES)
def test_other_runtimes_answer_as_keras(films, model, name):
    images = np.random.default_rng(3).random((4, SIZE, SIZE, 1), np.float32)
    wanted = predictor(model)(images)
    try:
        answers, _ = runtimes.ask(
            name, images, export=Path.cwd(), model=Path("unet.keras")
        )
    except runtimes.NotInstalledError as error:
        pytest.skip(str(error))
    for prob in answers:
        np.testing.assert_allclose(prob, wanted, atol=0.005)
