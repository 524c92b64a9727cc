"""A page and an HTTP interface over an exported model: `lungfield serve`.

`engine.py` predicts, `app.py` speaks HTTP, `server.py` listens, `counts.py` counts,
`page/` is what a browser shows. No image is stored or logged, and TensorFlow is not
needed.
"""
