import json
import urllib.request

import numpy

url = "http://127.0.0.1:8501/v1/models/unet:predict"
body = json.dumps({"instances": images.tolist()}).encode()
answer = json.load(urllib.request.urlopen(url, body))
probability = numpy.array(answer["predictions"], "float32")
