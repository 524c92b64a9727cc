import tensorflow

module = tensorflow.saved_model.load("saved_model")
network = module.signatures["serving_default"]
probability = network(image=tensorflow.constant(images))["probability"].numpy()
