import base64
import dataclasses
import http.client
import json
import logging
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from stages.core.errors import PipelineError
from stages.core.imaging import decode, decode_mask
from stages.inference.predict import predict, sources
from stages.inference.serve import __main__ as command
from stages.inference.serve.app import chosen
from stages.inference.serve.engine import svg_path
from stages.inference.serve.guard import HEADERS
from stages.inference.serve.limits import RefusedError
from tests.conftest import ROOT, png
from tests.inference.onnx_models import dark_is_lung
from tests.inference.serving import SIZE, Served, picture, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


def test_the_mask_is_that_of_predict(served, tmp_path):
    (tmp_path / "film.png").write_bytes(picture())
    images = sources([str(tmp_path / "film.png")], tmp_path)
    [row] = predict(served.model, images, tmp_path)
    status, headers, content = served.ask("/predict", picture())
    assert (status, headers["content-type"]) == (200, "image/png")
    assert content == (tmp_path / "masks" / "film.png").read_bytes()
    assert decode(content).shape == (60, 60)
    assert headers["x-lung-area-fraction"] == row["lung_area_fraction"].rstrip("0")
    assert headers["x-components"] == row["components"] == "2"
    assert headers["x-model-sha256"] == row["model_sha256"]
    assert "Not a medical device" in headers["x-notice"]
    # Nothing is in the file but the picture.
    kinds, at = [], 8
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        kinds.append(kind)
        at += 12 + length
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


def test_facts_as_json(served):
    _, _, mask = served.ask("/predict", picture())
    status, _, content = served.ask("/predict", picture(), Accept="application/json")
    facts = json.loads(content)
    assert status == 200
    assert base64.b64decode(facts.pop("mask")) == mask
    assert (facts["height"], facts["width"], facts["components"]) == (60, 60, 2)
    share = decode_mask(mask).mean()
    assert facts["lung_area_fraction"] == pytest.approx(share, abs=1e-6)
    assert facts["warnings"] == []
    assert not {"view", "outline"} & facts.keys()
    white = png(np.full((9, 7), 255, np.uint8))
    answer = served.ask("/predict?view=true", white, Accept="application/json")
    facts = json.loads(answer[2])
    assert facts["mean_confidence"] is None
    assert "no lung found" in facts["warnings"]
    assert decode(base64.b64decode(facts["view"])).shape == (9, 7)
    assert facts["outline"] == ""


def test_the_outline_is_the_masks_border():
    mask = np.zeros((8, 8), bool)
    mask[2:5, 1:4] = True
    assert svg_path(mask) == "M1.5,2.5 1.5,4.5 3.5,4.5 3.5,2.5Z"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("application/json", "application/json"),
        ("image/png;q=0.2, application/json;q=0.7", "application/json"),
        ("text/html, */*;q=0.1", "image/png"),
        ("application/json;q=0, */*", "image/png"),
        ("image/png;q=nan, application/*;q=0.1", "application/json"),
    ],
)
def test_what_is_accepted_decides(accept, kind):
    assert chosen(accept) == kind


@pytest.mark.parametrize("accept", ["text/html", "", "*/*;q=0", "image/png;q=x"])
def test_what_cannot_be_given_is_refused(accept):
    with pytest.raises(RefusedError, match="accept one of them"):
        chosen(accept)


FORM = {"Content_Type": "multipart/form-data; boundary=x"}
LARGE = b"\x89PNG\r\n\x1a\n" + bytes(2**16)
WRONG = {
    "empty": ("/predict", b"", {}, 422, "the file is empty"),
    "text": ("/predict", b"hello", {}, 415, "of no known format"),
    "a PDF": ("/predict", b"%PDF-1.7", {}, 415, "is pdf but should be"),
    "cut": ("/predict", picture()[:90], {}, 422, "cannot be read"),
    "a form": ("/predict", picture(), FORM, 415, "--data-binary"),
    "too wide": ("/predict", picture(0, 257), {}, 422, "declares 257 x 257 pixels"),
    "too large": ("/predict", LARGE, {}, 413, "more than 65536 bytes"),
    "endless": ("/predict", iter([LARGE] * 9), {}, 413, "more than 65536 bytes"),
    "not accepted": ("/predict", picture(), {"Accept": "text/html"}, 406, "accept"),
    "a GET": ("/predict", None, {}, 405, "GET does not work here"),
    "nowhere": ("/admin", None, {}, 404, "nothing is here"),
    "a foreign name": ("/", None, {"Host": "evil.example:80"}, 421, "Host header"),
    "a foreign page": (
        *("/predict", picture(), {"Sec_Fetch_Site": "cross-site"}),
        *(403, "another site's page"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_sentence(served, name):
    path, body, asked, status, sentence = WRONG[name]
    found, headers, content = served.ask(path, body, **asked)
    told = json.loads(content)
    assert found == status
    assert sentence in told["error"]
    assert "\n" not in told["error"]
    assert list(told) == ["error"]
    assert all(headers[name] == value for name, value in HEADERS.items())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:80", "LOCALHOST"])
def test_this_machines_names_are_answered(served, host):
    status, headers, content = served.ask("/healthz", Host=host)
    assert (status, json.loads(content)) == (200, {"status": "ok"})
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers


def test_two_hundred_at_once_and_none_is_lost(served, tmp_path, caplog):
    """Each gets the answer to its own image; nothing is stored or told of any."""
    pictures = [picture(seed, 40 + seed) for seed in range(8)]
    wanted = [served.ask("/predict", body)[2] for body in pictures]
    assert len(set(wanted)) == 8
    answers: dict[int, Any] = {}
    gate = threading.Barrier(200)

    def client(number: int) -> None:
        gate.wait()
        answers[number] = served.ask("/predict", pictures[number % 8])

    caplog.set_level(logging.DEBUG)
    clients = [threading.Thread(target=client, args=(n,)) for n in range(200)]
    for one in clients:
        one.start()
    for one in clients:
        one.join(60)
    assert [answers[n][0] for n in range(200)] == [200] * 200
    assert all(answers[n][2] == wanted[n % 8] for n in range(200))
    assert served.engine.waiting == 0
    assert not list(tmp_path.iterdir())
    assert {record.levelname for record in caplog.records} <= {"DEBUG"}
    assert "127.0.0.1" not in caplog.text


def test_metrics_are_prometheus(served):
    def values() -> dict[tuple[str, ...], float]:
        text = served.ask("/metrics")[2].decode()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    before = values()
    served.ask("/predict", picture())
    served.ask("/predict", png(np.full((20, 20), 250, np.uint8)))
    served.ask("/predict", b"")
    served.ask("/predict/../../Jane_Doe")
    gained = {k: v - before.get(k, 0) for k, v in values().items()}
    assert gained["lungmask_requests_total", "/predict", "200"] == 2
    assert gained["lungmask_requests_total", "/predict", "422"] == 1
    assert gained["lungmask_requests_total", "other", "404"] == 1
    assert gained["lungmask_images_total", "yes"] == 1
    assert gained["lungmask_images_total", "no"] == 1
    assert gained["lungmask_predict_seconds_count",] == 2
    assert before["lungmask_model", served.engine.sha256] == 1
    assert before["lungmask_images_waiting",] == 0
    assert not [key for key in gained if "Jane_Doe" in str(key)]


def hurry(served: Served) -> None:
    """From here on nothing may take long."""
    served.engine.limits = dataclasses.replace(served.engine.limits, seconds=0.2)


def test_a_full_queue_and_a_slow_answer(tmp_path):
    with serving(tmp_path, threads=1, queue=1) as served:
        model, free = served.engine.model, threading.Event()

        def slow(images):
            free.wait(30)
            return model.predict(images)

        served.engine.model = dataclasses.replace(model, predict=slow)
        answers = []

        def client():
            answers.append(served.ask("/predict", picture()))

        clients = [threading.Thread(target=client) for _ in range(2)]
        for one in clients:
            one.start()
        while served.engine.waiting < 2:
            time.sleep(0.01)
        status, headers, content = served.ask("/predict", picture())
        assert (status, headers["retry-after"]) == (503, "1")
        assert "2 images wait already" in json.loads(content)["error"]
        assert served.ask("/healthz")[0] == 200
        free.set()
        for one in clients:
            one.join(30)
        assert [answer[0] for answer in answers] == [200, 200]

        hurry(served)
        free.clear()
        for _ in range(2):
            status, headers, content = served.ask("/predict", picture())
            assert (status, headers["retry-after"]) == (503, "1")
            assert "no answer within 0.2 s" in json.loads(content)["error"]
        assert served.engine.waiting == 1  # the second was never begun
        free.set()
        while served.engine.waiting:
            time.sleep(0.01)


def test_who_sends_slowly_or_too_much_with_others(tmp_path):
    with serving(tmp_path, max_bytes=64) as served:
        assert served.engine.limits.max_held_bytes == 16 * 64
        waiting = []
        for number in range(1, 17):
            one = http.client.HTTPConnection(*served.address, timeout=30)
            one.putrequest("POST", "/predict")
            one.putheader("Content-Length", "65")
            one.endheaders(bytes(64))
            waiting.append(one)
            while served.held < 64 * number:
                time.sleep(0.01)
        status, headers, content = served.ask("/predict", bytes(64))
        assert (status, headers["retry-after"]) == (503, "1")
        assert "too many images" in json.loads(content)["error"]
        for one in waiting:
            one.close()
        while served.held:
            time.sleep(0.01)
        assert served.ask("/predict", bytes(64))[0] == 415

        hurry(served)
        free = threading.Event()

        def slowly():
            yield b"\x89PNG"
            free.wait(30)
            yield b"\r\n"

        threading.Timer(0.8, free.set).start()
        status, _, content = served.ask("/predict", slowly())
        assert status == 408
        assert "more than 0.2 s to arrive" in json.loads(content)["error"]


def test_a_defect_harms_no_other(tmp_path, caplog):
    with serving(tmp_path) as served:
        model = served.engine.model
        served.engine.model = dataclasses.replace(model, predict=None)
        status, _, content = served.ask("/predict", picture())
        assert status == 500
        assert "could not be predicted" in json.loads(content)["error"]
        assert "NoneType" in caplog.text
        served.engine.model = model
        assert served.ask("/predict", picture())[0] == 200


# The command


def test_the_command_starts_without_heavy_libraries_and_ends_well(tmp_path):
    dark_is_lung(tmp_path / "unet.onnx", SIZE)
    code = (
        "import sys\n"
        "heavy = 'tensorflow keras pandas pyarrow onnx pydantic fastapi'.split()\n"
        "sys.modules |= dict.fromkeys(heavy)\n"
        "from stages.core.errors import run\n"
        "from stages.inference.serve.__main__ import main\n"
        "run(main)\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code, "unet.onnx", "--port", "0", "--threads", "1"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = server.stdout.readline()
    port = int(re.match(r"http://127\.0\.0\.1:(\d+)/ ", line)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/predict", picture())
    assert connection.getresponse().read().startswith(b"\x89PNG")
    server.send_signal(signal.SIGINT)
    assert server.communicate(timeout=20) == ("ended\n", "")
    assert server.returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["unet.onnx"]


def run_main(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda *a, **k: None)
    monkeypatch.setattr(sys, "argv", ["serve", *words])
    level, threads = cv2.utils.logging.getLogLevel(), cv2.getNumThreads()
    try:
        command.main()
    finally:
        cv2.utils.logging.setLogLevel(level)
        cv2.setNumThreads(threads)


def test_other_machines_are_let_in_with_a_warning(monkeypatch, tmp_path, caplog):
    path = str(dark_is_lung(tmp_path / "unet.onnx", SIZE))
    run_main(monkeypatch, path, "--port", "0")
    assert not caplog.records
    run_main(monkeypatch, path, "--port", "0", "--host", "0.0.0.0")
    assert "can be reached from other machines" in caplog.text


def test_what_cannot_be_listened_on_is_one_sentence(served):
    port = served.address[1]
    with pytest.raises(PipelineError, match=rf"--port {port} cannot be listened on"):
        command.listen("127.0.0.1", port)
    with pytest.raises(PipelineError, match="choose another port"):
        command.listen("127.0.0.1", 70000)
    with pytest.raises(PipelineError, match=r"--host 192\.0\.2\.1"):
        command.listen("192.0.2.1", 0)  # reserved for documentation: nobody's own
