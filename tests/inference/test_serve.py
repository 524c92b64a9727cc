import base64
import dataclasses
import http.client
import json
import logging
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stages.core.errors import PipelineError
from stages.core.imaging import decode, decode_mask
from stages.inference import predict
from stages.inference.serve import server
from stages.inference.serve.app import HEADERS
from stages.inference.serve.engine import Limits
from tests.conftest import ROOT, png
from tests.inference.onnx_models import dark_is_lung
from tests.inference.serving import SIZE, Served, picture, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


def test_the_mask_is_that_of_predict(served, tmp_path):
    (tmp_path / "film.png").write_bytes(picture())
    predict.predict(served.model, [str(tmp_path / "film.png")], tmp_path)
    status, headers, content = served.ask("/predict", picture())
    assert (status, headers["content-type"]) == (200, "image/png")
    assert content == (tmp_path / "masks" / "film.png").read_bytes()
    assert decode(content).shape == (60, 60)
    row = (tmp_path / "predictions.csv").read_text().splitlines()[1].split(",")
    assert headers["x-lung-area-fraction"] == row[3].rstrip("0")
    assert headers["x-components"] == row[4] == "2"
    assert headers["x-model-sha256"] == row[9]
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


FORM = {"Content_Type": "multipart/form-data; boundary=x"}
LARGE = b"\x89PNG\r\n\x1a\n" + bytes(2**16)
WRONG = {
    "empty": ("/predict", b"", {}, 422, "the file is empty"),
    "text": ("/predict", b"hello", {}, 415, "of no known format"),
    "a PDF": ("/predict", b"%PDF-1.7", {}, 415, "is pdf but should be"),
    "cut": ("/predict", picture()[:90], {}, 422, "cannot be read"),
    "a form": ("/predict", picture(), FORM, 415, "--data-binary"),
    "too large": ("/predict", LARGE, {}, 413, "more than 65536 bytes"),
    "endless": ("/predict", iter([LARGE] * 9), {}, 413, "more than 65536 bytes"),
    "out of the folder": ("/../app.py", None, {}, 404, "Not Found"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_gets_one_sentence(served, name):
    path, body, asked, status, sentence = WRONG[name]
    found, headers, content = served.ask(path, body, **asked)
    told = json.loads(content)
    assert found == status
    assert sentence in told["detail"]
    assert "\n" not in told["detail"]
    assert all(headers[name] == value for name, value in HEADERS.items())


def test_only_names_of_this_machine_are_answered(served):
    for host in ("localhost", "127.0.0.1:80", "[::1]:80", "LOCALHOST"):
        status, headers, content = served.ask("/healthz", Host=host)
        assert (status, json.loads(content)) == (200, {"status": "ok"})
        assert "server" not in headers
    # A page of this name, made to point here, could read the answers.
    assert served.ask("/", Host="evil.example:80")[0] == 400


def test_the_interface_describes_itself_without_another_host(served):
    page = served.ask("/docs")[2].decode()
    assert "openapi.json" in page
    assert "//" not in page
    api = json.loads(served.ask("/openapi.json")[2])
    assert set(api["paths"]) == {"/predict", "/model", "/healthz", "/metrics"}
    answers = api["paths"]["/predict"]["post"]["responses"]
    assert set(answers["200"]["content"]) == {"image/png", "application/json"}
    told = json.loads(served.ask("/model")[2])
    assert (told["image_size"], told["sha256"]) == (SIZE, served.engine.sha256)
    assert told["formats"] == ["png", "jpeg", "tiff", "bmp", "dicom"]


def test_two_hundred_at_once_and_none_is_lost(served, tmp_path, caplog):
    """Each gets the answer to its own image; nothing is stored or logged."""
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


def swap(served: Served, **changes: Any) -> None:
    """Gives the served model another behaviour."""
    segmenter = served.engine.segmenter
    segmenter.model = dataclasses.replace(segmenter.model, **changes)


def hurry(served: Served) -> None:
    """From here on nothing may take long."""
    served.engine.limits = dataclasses.replace(served.engine.limits, seconds=0.2)


def test_a_full_queue_and_a_slow_answer(tmp_path):
    with serving(tmp_path, threads=1, queue=1) as served:
        quick, free = served.engine.segmenter.model.predict, threading.Event()

        def slow(images):
            free.wait(30)
            return quick(images)

        swap(served, predict=slow)
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
        assert "2 images are waiting already" in json.loads(content)["detail"]
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
            assert "no answer within 0.2 s" in json.loads(content)["detail"]
        assert served.engine.waiting == 0
        assert served.engine.is_busy  # the first cannot be stopped
        free.set()
        while served.engine.is_busy:
            time.sleep(0.01)


def test_a_slow_client(tmp_path):
    with serving(tmp_path) as served:
        hurry(served)
        free = threading.Event()

        def slowly():
            yield b"\x89PNG"
            free.wait(30)
            yield b"\r\n"

        threading.Timer(0.8, free.set).start()
        status, _, content = served.ask("/predict", slowly())
        assert status == 408
        assert "more than 0.2 s to arrive" in json.loads(content)["detail"]


def test_connections_without_a_request_are_closed(tmp_path, monkeypatch):
    """Or they would use up the file descriptors."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    with serving(tmp_path) as served:
        silent = socket.create_connection(served.address, timeout=20)
        begun = socket.create_connection(served.address, timeout=20)
        begun.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow:")
        asked = http.client.HTTPConnection(*served.address, timeout=20)
        asked.request("GET", "/healthz")
        assert asked.getresponse().read() == b'{"status":"ok"}'
        assert silent.recv(1) == b""
        assert begun.recv(1) == b""
        assert asked.sock.recv(1) == b""


def test_answers_do_not_wait_for_acknowledgements(served):
    option = served.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert option  # accepted connections inherit it


def test_a_defect_harms_no_other(tmp_path, caplog):
    with serving(tmp_path) as served:
        quick = served.engine.segmenter.model.predict
        swap(served, predict=None)
        assert served.ask("/predict", picture())[0] == 500
        assert "NoneType" in caplog.text
        swap(served, predict=quick)
        assert served.ask("/predict", picture())[0] == 200


# The command


def start(folder, *words: str) -> tuple[subprocess.Popen[str], int]:
    """`lungfield serve`, and its port."""
    words = ("serve", "unet.onnx", "--port", "0", *words)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.cli", *words],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    return process, int(re.match(r"http://127\.0\.0\.1:(\d+)/ ", line)[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_answers_what_has_begun_and_ends(tmp_path, number):
    dark_is_lung(tmp_path / "unet.onnx", SIZE)
    process, port = start(tmp_path, "--threads", "1")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = picture()
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:50])
    time.sleep(0.3)  # until the server has it
    process.send_signal(number)
    time.sleep(0.3)
    connection.send(body[50:])
    assert connection.getresponse().read().startswith(b"\x89PNG")
    assert process.communicate(timeout=20) == ("ended\n", "")
    assert process.returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["unet.onnx"]


def test_other_machines_are_let_in_with_a_warning(monkeypatch, tmp_path, caplog):
    path = dark_is_lung(tmp_path / "unet.onnx", SIZE)
    limits = Limits(2**20, 2**20, 30, threads=1, queue=1)
    monkeypatch.setattr("uvicorn.Server.run", lambda *a, **k: None)
    monkeypatch.setattr("cv2.setNumThreads", lambda count: None)
    for host in ("127.0.0.1", "0.0.0.0"):
        assert not caplog.records
        server.run(path, limits, host=host, port=0, threshold=None)
    assert "can be reached from other machines" in caplog.text


def test_a_port_that_cannot_be_opened_is_one_sentence(served):
    port = served.address[1]
    with pytest.raises(PipelineError, match=rf"--port {port} cannot be listened on"):
        server.listen("127.0.0.1", port)
    with pytest.raises(PipelineError, match="choose another port"):
        server.listen("127.0.0.1", 70000)
    with pytest.raises(PipelineError, match=r"--host 192\.0\.2\.1"):
        server.listen("192.0.2.1", 0)  # reserved for documentation: nobody's own
