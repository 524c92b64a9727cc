"""A page and an HTTP interface over an exported model, on loopback.

`python -m stages.inference.serve MODEL` serves

- `/`: drop an image, see the outline, download the mask;
- `POST /predict`: the bytes of an image in, a mask or its facts out;
- `/model`, `/healthz`, `/metrics`: what it is, and how it does.

`engine.py` predicts, `app.py` speaks HTTP, `guard.py` keeps others out, `counts.py`
counts. No image is stored or logged, and no part of it needs TensorFlow.
"""
