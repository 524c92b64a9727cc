from ai_edge_litert.interpreter import Interpreter

network = Interpreter("unet.tflite").get_signature_runner()
probability = network(image=images)["probability"]  # one image at a time
