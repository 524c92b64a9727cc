// From a film to its mask with OpenCV alone:
// g++ opencv.cpp -o segment $(pkg-config --cflags --libs opencv4)
#include <opencv2/dnn.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

const int SIZE = 128;
const int CHANNELS = 1;
const double THRESHOLD = 0.5;

int main() {
  int kind = CHANNELS == 1 ? cv::IMREAD_GRAYSCALE : cv::IMREAD_COLOR;
  cv::Mat film = cv::imread("film.png", kind);
  bool shrinks = film.rows >= SIZE && film.cols >= SIZE;
  int method = shrinks ? cv::INTER_AREA : cv::INTER_LINEAR;
  cv::Mat image, full;
  cv::resize(film, image, cv::Size(SIZE, SIZE), 0, 0, method);
  image.convertTo(image, CV_32F, 1.0 / 255);

  cv::dnn::Net network = cv::dnn::readNetFromONNX("unet.onnx");
  network.setInput(image.reshape(1, std::vector<int>{1, SIZE, SIZE, CHANNELS}));
  cv::Mat probability = network.forward().reshape(1, std::vector<int>{SIZE, SIZE});

  cv::resize(probability, full, film.size(), 0, 0, cv::INTER_LINEAR);
  cv::Mat mask = full >= THRESHOLD;  // 0 or 255
  cv::imwrite("mask.png", mask);
}
