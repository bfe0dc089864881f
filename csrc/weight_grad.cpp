// The roles of the usual weight gradient are reversed: x, the large operand, is read once, and
// taps, strides and zero padding act on the few channels of grad_output that belong to learned
// filters:
//   dW[f, r, s, c] = sum over input pixels of x[h, w, c] * grad[f, (h + p - r d) / stride, ...].
// So the prologue on x needs no padding mask, either.
#include "weight_grad.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "threads.h"
#include "weight_grad_kernel.h"

namespace maskedconv {
namespace {

// Of x that a block of rows brings into the second cache: a larger block loads and stores its sums
// less often than one that fits the first.
constexpr int64_t kCacheFloats = 32768;

TileKernel best_kernel() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return weight_grad_tile_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return weight_grad_tile_avx2;
#endif
    return weight_grad_tile_generic;
}

float as_float(float value) { return value; }
float as_float(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// What is the same for every image of a problem.
struct Plan {
    const WeightGrad& p;
    bool folds;             // channels are so few that the taps of a kernel row count as channels
    int64_t taps;           // of a kernel row that do not
    int64_t used;           // floats of a tap's sum
    int64_t channels;       // the same, padded to whole vectors
    bool copies_x;          // folding, converting or the prologue: x goes through a buffer
    int64_t overlap;        // of the last vectors with those before, where x is not padded
    int64_t x_pixel, x_row; // pitches of that buffer
    bool joint_columns;     // taps of one kernel row are neighbours in the padded gradient
    int64_t left, padded;   // margin and width of the padded gradient's rows, in pixels
    bool copies_grad;       // several taps or converting: the gradient goes through a buffer
    int64_t block_rows;     // of x
    TileKernel kernel;

    explicit Plan(const WeightGrad& problem) : p(problem) {
        folds = p.channels < kLane && p.kernel.columns > 1 && p.dilation.columns == 1;
        taps = folds ? 1 : p.kernel.columns;
        used = folds ? p.kernel.columns * p.channels : p.channels;
        channels = ceil_div(used, kLane) * kLane;
        copies_x = p.channels < kLane || p.type != Element::float32 || p.scale != nullptr;
        overlap = copies_x ? 0 : channels - used;
        x_pixel = folds ? p.channels : channels;
        x_row = x_pixel * (folds ? windows() : p.input.columns);
        joint_columns = !folds && p.stride.columns == 1 && p.dilation.columns == 1;
        left = joint_columns ? std::max<int64_t>(0, p.kernel.columns - 1 - p.padding.columns) : 0;
        const int64_t last = joint_columns ? p.input.columns - 1 + p.padding.columns : 0;
        padded = left + std::max(p.output.columns, last + 1);
        const bool read_once = p.kernel.rows * p.kernel.columns == 1 && padded == p.output.columns;
        copies_grad = !read_once || p.type != Element::float32 || p.grad_channel != 1;
        block_rows = std::max<int64_t>(1, kCacheFloats / std::max<int64_t>(1, x_row));
        kernel = best_kernel();
    }

    int64_t sums() const { return p.filters * p.kernel.rows * taps * channels; }

    // Columns of x with its zero padding, as far as kernels at all output pixels reach.
    int64_t windows() const {
        return std::max(p.padding.columns + p.input.columns,
                        (p.output.columns - 1) * p.stride.columns + p.kernel.columns);
    }
};

// One thread's buffers and sums.
class Worker {
  public:
    explicit Worker(const Plan& plan)
        : plan_(plan), p_(plan.p), sums(static_cast<size_t>(plan.sums())),
          grad_(plan.copies_grad ? p_.output.rows * plan.padded * p_.filters : 0),
          // Behind the last pixel a vector of folded taps reads on.
          x_(plan.copies_x ? plan.block_rows * plan.x_row + plan.channels : 0) {}

    template <typename T> void add_image(int64_t image) {
        const T* grad = static_cast<const T*>(p_.grad_output) + image * p_.grad_image;
        tile_.grad = reinterpret_cast<const float*>(grad);
        tile_.grad_row = p_.grad_row, tile_.grad_pixel = p_.grad_pixel;
        if (plan_.copies_grad)
            pack_grad(grad);
        const T* x = static_cast<const T*>(p_.x) + image * p_.x_image;
        for (int64_t row = 0; row < p_.input.rows; row += plan_.block_rows)
            add_rows(x, row, std::min(row + plan_.block_rows, p_.input.rows));
    }

  private:
    const Plan& plan_;
    const WeightGrad& p_;

  public:
    std::vector<float> sums; // [kernel row][column of it][channels]

  private:
    std::vector<float> grad_; // [output row][padded pixel][filter]
    std::vector<float> x_;    // [row of the block][pixel][channels]
    TileInput tile_{};        // the image's gradient

    template <typename T> void pack_grad(const T* grad) {
        for (int64_t row = 0; row < p_.output.rows; ++row) {
            float* to = grad_.data() + (row * plan_.padded + plan_.left) * p_.filters;
            const T* from = grad + row * p_.grad_row;
            if (p_.grad_channel == 1)
                pack_row(from, to, 1);
            else
                pack_row(from, to, p_.grad_channel);
        }
        tile_.grad = grad_.data();
        tile_.grad_row = plan_.padded * p_.filters, tile_.grad_pixel = p_.filters;
    }

    // Inlined into both its calls, so that the compiler knows the pitch where it is 1.
    template <typename T>
    __attribute__((always_inline)) void pack_row(const T* __restrict from, float* __restrict to, int64_t pitch) {
        for (int64_t pixel = 0; pixel < p_.output.columns; ++pixel, from += p_.grad_pixel)
            for (int64_t filter = 0; filter < p_.filters; ++filter)
                *to++ = as_float(from[filter * pitch]);
    }

    template <typename T> void copy_x(const T* x, int64_t row, int64_t end) {
        float* to = x_.data() + (plan_.folds ? p_.padding.columns * plan_.x_pixel : 0);
        // Pixels that lie side by side in both are one run.
        const bool dense = p_.x_pixel == plan_.x_pixel && p_.scale == nullptr;
        const int64_t runs = dense ? 1 : p_.input.columns;
        const int64_t length = p_.channels * (dense ? p_.input.columns : 1);
        for (; row < end; ++row, to += plan_.x_row)
            for (int64_t run = 0; run < runs; ++run)
                copy_run(x + row * p_.x_row + run * p_.x_pixel, to + run * plan_.x_pixel, length);
    }

    template <typename T> void copy_run(const T* from, float* to, int64_t length) {
        for (int64_t i = 0; i < length; ++i)
            to[i] = as_float(from[i]);
        if (p_.scale != nullptr)
            for (int64_t c = 0; c < length; ++c)
                to[c] = std::max(0.0f, to[c] * p_.scale[c] + p_.shift[c]);
    }

    template <typename T> void add_rows(const T* x, int64_t row, int64_t end) {
        TileInput tile = tile_;
        tile.channels = plan_.channels;
        tile.overlap = plan_.overlap;
        if (plan_.copies_x) {
            copy_x(x, row, end);
            tile.x_row = plan_.x_row;
            tile.x_pixel = plan_.x_pixel;
            tile.x = x_.data();
        } else {
            tile.x_row = p_.x_row;
            tile.x_pixel = p_.x_pixel;
            tile.x = reinterpret_cast<const float*>(x) + row * p_.x_row;
        }
        for (int64_t r = 0; r < p_.kernel.rows; ++r)
            add_tap_row(tile, r, row, end);
    }

    // Output rows o whose input row o * stride + r * dilation - padding is in [row, end).
    void add_tap_row(TileInput tile, int64_t r, int64_t row, int64_t end) {
        const int64_t offset = r * p_.dilation.rows - p_.padding.rows;
        const int64_t first = std::max<int64_t>(0, ceil_div(row - offset, p_.stride.rows));
        const int64_t last =
            std::min(p_.output.rows - 1, floor_div(end - 1 - offset, p_.stride.rows));
        if (first > last)
            return;
        tile.rows = last - first + 1;
        tile.x += (first * p_.stride.rows + offset - row) * tile.x_row;
        tile.x_row *= p_.stride.rows;
        tile.grad += first * tile.grad_row;
        tile.sum = sums.data() + r * plan_.taps * p_.filters * plan_.channels;
        if (plan_.folds)
            return add_folded(tile);
        if (plan_.joint_columns)
            return add_joint_columns(tile);
        for (int64_t s = 0; s < p_.kernel.columns; ++s)
            add_one_tap(tile, s);
    }

    // Every output pixel meets a window of the padded row: all taps and channels side by side.
    void add_folded(TileInput tile) {
        tile.x_pixel *= p_.stride.columns;
        tile.pixels = p_.output.columns;
        tile.columns = p_.filters;
        plan_.kernel(tile);
    }

    // Every input pixel w meets, for the taps from the last to the first, the neighbouring output
    // pixels w + p - s: their filters are the columns.
    void add_joint_columns(TileInput tile) {
        tile.grad += (plan_.left + p_.padding.columns - (p_.kernel.columns - 1)) * tile.grad_pixel;
        tile.pixels = p_.input.columns;
        tile.columns = p_.kernel.columns * p_.filters;
        plan_.kernel(tile);
    }

    void add_one_tap(TileInput tile, int64_t s) {
        const int64_t offset = s * p_.dilation.columns - p_.padding.columns;
        const int64_t first = std::max<int64_t>(0, ceil_div(-offset, p_.stride.columns));
        const int64_t last = std::min(p_.output.columns - 1,
                                      floor_div(p_.input.columns - 1 - offset, p_.stride.columns));
        if (first > last)
            return;
        tile.pixels = last - first + 1;
        tile.x += (first * p_.stride.columns + offset) * tile.x_pixel;
        tile.x_pixel *= p_.stride.columns;
        tile.grad += first * tile.grad_pixel;
        tile.columns = p_.filters;
        tile.sum += (p_.kernel.columns - 1 - s) * p_.filters * plan_.channels;
        plan_.kernel(tile);
    }
};

// Adds the threads' sums in their order, and puts taps and filters in the order of the result.
void reduce(const Plan& plan, const std::vector<Worker>& workers, int64_t begin, int64_t end) {
    const WeightGrad& p = plan.p;
    for (int64_t row = begin; row < end; ++row) {
        const int64_t filter = row / (p.kernel.rows * plan.taps);
        const int64_t r = row / plan.taps % p.kernel.rows;
        const int64_t s = row % plan.taps;
        const int64_t tap = r * plan.taps + (plan.taps - 1 - s);
        const int64_t from = (tap * p.filters + filter) * plan.channels;
        float* to = p.out + row * plan.used;
        const int64_t straight = plan.overlap > 0 ? plan.channels - kLane : plan.used;
        const auto add = [&](const float* sums) {
            for (int64_t c = 0; c < straight; ++c)
                to[c] += sums[c];
            for (int64_t c = straight; c < plan.used; ++c)
                to[c] += sums[c + plan.overlap];
        };
        std::fill_n(to, plan.used, 0.0f);
        for (const Worker& worker : workers)
            add(worker.sums.data() + from);
    }
}

} // namespace

void weight_grad_cpu(const WeightGrad& p, int threads) {
    const Plan plan(p);
    threads = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, p.batch)));
    std::vector<Worker> workers(static_cast<size_t>(threads), Worker(plan));
    parallel(threads, [&](int thread, int count) {
        // With fewer threads than asked for, one does the work of several, in the same order.
        for (int share = thread; share < threads; share += count)
            for (int64_t i = p.batch * share / threads; i < p.batch * (share + 1) / threads; ++i)
                if (p.type == Element::float32)
                    workers[static_cast<size_t>(share)].add_image<float>(i);
                else
                    workers[static_cast<size_t>(share)].add_image<uint16_t>(i);
    });
    reduce(plan, workers, 0, p.filters * p.kernel.rows * plan.taps);
}

const char* weight_grad_isa() {
    const TileKernel kernel = best_kernel();
    if (kernel == weight_grad_tile_avx512)
        return "avx512";
    return kernel == weight_grad_tile_avx2 ? "avx2" : "generic";
}

} // namespace maskedconv
