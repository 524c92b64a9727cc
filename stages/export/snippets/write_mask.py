THRESHOLD = 0.5

size = (width, height)
full = cv2.resize(probability[0, :, :, 0], size, interpolation=cv2.INTER_LINEAR)
mask = full >= THRESHOLD
cv2.imwrite("mask.png", mask.astype("uint8") * 255)
