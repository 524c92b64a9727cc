import cv2

SIZE = 128
CHANNELS = 1

kind = cv2.IMREAD_GRAYSCALE if CHANNELS == 1 else cv2.IMREAD_COLOR
film = cv2.imread("film.png", kind)
height, width = film.shape[:2]
shrinks = height >= SIZE and width >= SIZE
method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
pixels = cv2.resize(film, (SIZE, SIZE), interpolation=method)
images = pixels.reshape(1, SIZE, SIZE, CHANNELS).astype("float32") / 255
