// The sums of one thread of weight_grad on the CPU. A chain of float additions loses a digit for
// every hundred terms, so that no chain is long: a tile's registers take kRun pixels (or a row's
// end later) and are then added to the floats here, and these go into doubles from time to time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace maskedconv {

class Sums {
  public:
    // Not yet zeros: the thread that adds writes them, as they may be megabytes.
    explicit Sums(int64_t size)
        : size_(static_cast<size_t>(size)), floats_(new float[static_cast<size_t>(size)]) {}

    void start() { std::fill_n(floats_.get(), size_, 0.0f); }

    // For tiles to add to.
    float* floats() { return floats_.get(); }

    // To be called when tiles have added so many pixels.
    void count(int64_t pixels) {
        pixels_ += pixels;
        if (pixels_ >= kPixelsInFloats)
            flush();
    }

    double value(int64_t index) const {
        const size_t i = static_cast<size_t>(index);
        return doubles_.empty() ? floats_[i] : doubles_[i] + floats_[i];
    }

  private:
    // Few enough for the error, and so many that the passes over all sums cost nothing.
    static constexpr int64_t kPixelsInFloats = 8192;

    void flush() {
        doubles_.resize(size_);
        for (size_t i = 0; i < size_; ++i)
            doubles_[i] += floats_[i];
        start();
        pixels_ = 0;
    }

    size_t size_;
    std::unique_ptr<float[]> floats_;
    std::vector<double> doubles_; // empty before the first flush
    int64_t pixels_ = 0;
};

// The sums of all threads, added in the threads' order.
class Totals {
  public:
    void add(Sums sums) { threads_.push_back(std::move(sums)); }

    float at(int64_t i) const {
        double total = threads_[0].value(i);
        for (size_t thread = 1; thread < threads_.size(); ++thread)
            total += threads_[thread].value(i);
        return static_cast<float>(total);
    }

  private:
    std::vector<Sums> threads_;
};

} // namespace maskedconv
