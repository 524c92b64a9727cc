"""The TensorFlow room: data sets, losses, the train step, the networks."""
