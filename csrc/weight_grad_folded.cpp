// For few channels, as of a first layer's images, all taps count as channels:
//   dW[f, r, s, c] = sum over output pixels of grad[f, ...] * window[r, s, c],
// where the columns and channels of a window's row lie side by side in an image with its zero
// padding.
#include "weight_grad_ways.h"

namespace maskedconv {
namespace {

// What is the same for every image of a problem.
struct Plan {
    const WeightGrad& p;
    int64_t window;               // floats of a window's row
    int64_t padded_window;        // to whole vectors
    int64_t channels;             // of all the window's rows
    Pair size;                    // of the padded image
    std::vector<int64_t> offsets; // see TileInput
    int64_t images;               // at once
    TileKernel kernel;

    Plan(const WeightGrad& problem, TileKernel tile_kernel) : p(problem), kernel(tile_kernel) {
        window = p.kernel.columns * p.channels;
        padded_window = ceil_div(window, kLane) * kLane;
        channels = p.kernel.rows * padded_window;
        size = {extent(p.input.rows, p.padding.rows, p.output.rows, p.stride.rows,
                       (p.kernel.rows - 1) * p.dilation.rows),
                extent(p.input.columns, p.padding.columns, p.output.columns, p.stride.columns,
                       p.kernel.columns - 1)};
        for (int64_t r = 0; r < p.kernel.rows; ++r)
            for (int64_t lane = 0; lane < padded_window; lane += kLane)
                offsets.push_back(r * p.dilation.rows * row() + lane);
        images = images_at_once(p, image() + gradient());
    }

    // Floats of a row of the padded image.
    int64_t row() const { return size.columns * p.channels; }
    int64_t image() const { return size.rows * row(); }
    int64_t gradient() const { return p.output.rows * p.output.columns * p.filters; }

    // As far as windows of all output pixels reach, and the image.
    static int64_t extent(int64_t input, int64_t padding, int64_t output, int64_t stride,
                          int64_t reach) {
        return std::max(padding + input, (output - 1) * stride + reach + 1);
    }
};

// One thread's buffers and sums.
class Worker {
  public:
    explicit Worker(const Plan& plan)
        : plan_(plan), p_(plan.p), sums(static_cast<size_t>(p_.filters * plan.channels)),
          grad_(static_cast<size_t>(plan.images * plan.gradient())),
          // The last vector of the last window reads on behind it.
          images_(static_cast<size_t>(plan.images * plan.image() + kLane)) {}

    template <typename T> void add(int64_t image, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
            pack_gradient(p_, static_cast<const T*>(p_.grad_output) + (image + i) * p_.grad_image,
                          grad_.data() + i * plan_.gradient(), 0, p_.output.columns);
            copy_image(static_cast<const T*>(p_.x) + (image + i) * p_.x_image,
                       images_.data() + i * plan_.image());
        }
        TileInput tile{};
        tile.images = count;
        tile.x = images_.data();
        tile.x_image = plan_.image();
        tile.x_row = plan_.row() * p_.stride.rows;
        tile.x_pixel = p_.channels * p_.stride.columns;
        tile.grad = grad_.data();
        tile.grad_image = plan_.gradient();
        tile.grad_row = p_.output.columns * p_.filters;
        tile.grad_pixel = p_.filters;
        tile.rows = p_.output.rows;
        tile.pixels = p_.output.columns;
        tile.channels = plan_.channels;
        tile.offsets = plan_.offsets.data();
        tile.columns = p_.filters;
        tile.sum = sums.data();
        plan_.kernel(tile);
    }

  private:
    const Plan& plan_;
    const WeightGrad& p_;

  public:
    std::vector<float> sums; // [filter][kernel row][padded window]

  private:
    std::vector<float> grad_;   // [image][output row][pixel][filter]
    std::vector<float> images_; // [image][row][pixel][channel], zero around each

    template <typename T> void copy_image(const T* x, float* padded) {
        // Pixels that lie side by side are copied as one.
        const bool dense = p_.x_pixel == p_.channels && p_.scale == nullptr;
        const int64_t count = dense ? p_.input.columns * p_.channels : p_.channels;
        for (int64_t row = 0; row < p_.input.rows; ++row) {
            float* to =
                padded + (row + p_.padding.rows) * plan_.row() + p_.padding.columns * p_.channels;
            for (int64_t pixel = 0; pixel < (dense ? 1 : p_.input.columns); ++pixel)
                copy_channels(p_, x + row * p_.x_row + pixel * p_.x_pixel, to + pixel * p_.channels,
                              count);
        }
    }
};

} // namespace

bool can_fold(const WeightGrad& p) { return p.channels < kLane && p.dilation.columns == 1; }

void weight_grad_folded(const WeightGrad& p, int threads, TileKernel kernel) {
    const Plan plan(p, kernel);
    const std::vector<Worker> workers = add_images<Worker>(plan, p, threads);
    for (int64_t row = 0; row < p.filters * p.kernel.rows; ++row) {
        float* to = p.out + row * plan.window;
        std::fill_n(to, plan.window, 0.0f);
        for (const Worker& worker : workers)
            for (int64_t i = 0; i < plan.window; ++i)
                to[i] += worker.sums[static_cast<size_t>(row * plan.padded_window + i)];
    }
}

} // namespace maskedconv
