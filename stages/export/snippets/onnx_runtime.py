import os

# Without it, ONNX Runtime reports its use over the network.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

session = onnxruntime.InferenceSession("unet.onnx")
probability = session.run(["probability"], {"image": images})[0]
