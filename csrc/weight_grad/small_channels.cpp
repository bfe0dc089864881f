// For few channels, as of a first layer's images, all taps count as channels:
//   dW[f, r, s, c] = sum over output pixels of grad[f, ...] * window[s, r, c].
// x is copied to strips, with its zero padding, in which the channels of a window lie side by side.
// If a strip is a row of x, these are the channels of one row of the window; if a strip has all
// rows for one row of the output, the channels of the full window. The second costs more copying
// and leaves fewer lanes of the vectors empty.
#include "weight_grad/algorithms.h"

namespace maskedconv {
namespace {

// Vectors multiplied and added while kCopiedAtOnce channels of a pixel are copied.
constexpr int64_t kProductsOfACopy = 4;

// The parameters that all images of a problem share.
template <typename S, typename E> struct Plan {
    const WeightGrad& p;
    int64_t joint;                // rows of x in a strip
    int64_t strips, strip_step;   // of an image, and rows of x from one to the next
    int64_t columns;              // pixels of a strip's rows
    int64_t channels;             // of the window, in full vectors
    std::vector<int64_t> offsets; // see TileInput
    bool copies_grad;             // into a buffer
    int64_t images;               // at once
    const Loops<S, E>& loops;

    Plan(const WeightGrad& problem, const Loops<S, E>& inner_loops)
        : p(problem), loops(inner_loops) {
        columns = extent(p.input.columns, p.padding.columns, p.output.columns, p.stride.columns,
                         p.kernel.columns - 1);
        const int64_t rows = extent(p.input.rows, p.padding.rows, p.output.rows, p.stride.rows,
                                    (p.kernel.rows - 1) * p.dilation.rows);
        joint = joins_rows() ? p.kernel.rows : 1;
        strips = joint > 1 ? p.output.rows : rows;
        strip_step = joint > 1 ? p.stride.rows : 1;
        for (int64_t r = 0; r < p.kernel.rows; r += joint)
            for (int64_t lane = 0; lane < part(); lane += kLane)
                offsets.push_back(r * p.dilation.rows * strip() + lane);
        channels = static_cast<int64_t>(offsets.size()) * kLane;
        // Every block of channels and filters reads it.
        copies_grad = !Gradient<S, E>::is_readable(p) || p.filters > kLane;
        images = images_at_once(p, image() * sizeof(E) + gradient() * sizeof(float));
    }

    // Elements.
    int64_t strip() const { return columns * joint * p.channels; }
    int64_t image() const { return strips * strip(); }
    int64_t gradient() const { return p.output.rows * p.output.columns * p.filters; }

    // Index of a filter's sum for the first channel of a tap.
    int64_t position(int64_t filter, int64_t r, int64_t s) const {
        return filter * channels + r / joint * part() + (s * joint + r % joint) * p.channels;
    }

  private:
    // Channels of the window that lie side by side, in full vectors.
    int64_t part() const { return whole_vectors(joint * p.kernel.columns * p.channels); }

    static int64_t whole_vectors(int64_t floats) { return ceil_div(floats, kLane) * kLane; }

    // Whether the vectors saved are worth the copying, which takes x as it is.
    bool joins_rows() const {
        if (p.scale != nullptr || p.x_pixel < p.channels)
            return false;
        const int64_t row = p.kernel.columns * p.channels;
        const int64_t saved =
            p.kernel.rows * whole_vectors(row) - whole_vectors(p.kernel.rows * row);
        const int64_t products = saved / kLane * p.filters * p.output.rows * p.output.columns;
        const int64_t pixels = (p.output.rows * p.kernel.rows - p.input.rows) * p.input.columns;
        return products > kProductsOfACopy * pixels * ceil_div(p.channels, kCopiedAtOnce);
    }

    // Extent that covers the windows of all output pixels and the image.
    static int64_t extent(int64_t input, int64_t padding, int64_t output, int64_t stride,
                          int64_t reach) {
        return std::max(padding + input, (output - 1) * stride + reach + 1);
    }
};

// One thread's buffers and sums.
template <typename S, typename E> class Worker {
  public:
    explicit Worker(const Plan<S, E>& plan)
        : plan_(plan), p_(plan.p), sums(p_.filters * plan.channels),
          grad_(p_, plan.loops, {p_.output.columns}),
          // The last vector of the last window reads on behind it.
          images_(static_cast<size_t>(plan.images * plan.image() + kLane)),
          zeros_(static_cast<size_t>(p_.input.columns * p_.x_pixel + kLane)) {
        if (plan.copies_grad)
            grad_.allocate(plan.images);
        if (converts())
            strip_.resize(static_cast<size_t>(p_.input.columns * plan.joint * p_.channels));
    }

    void add(int64_t image, int64_t count) {
        TileInput<E> tile{};
        tile.images = count;
        grad_.set(tile, image, count);
        for (int64_t i = 0; i < count; ++i)
            copy_image(static_cast<const S*>(p_.x) + (image + i) * p_.x_image,
                       images_.data() + i * plan_.image());
        tile.x = images_.data();
        tile.x_image = plan_.image();
        tile.x_row = plan_.strip() * p_.stride.rows / plan_.strip_step;
        tile.x_pixel = plan_.joint * p_.channels * p_.stride.columns;
        tile.rows = p_.output.rows;
        tile.pixels = p_.output.columns;
        tile.channels = plan_.channels;
        tile.offsets = plan_.offsets.data();
        tile.columns = p_.filters;
        tile.sum = sums.floats();
        plan_.loops.tile(tile);
        sums.count(count * p_.output.rows * p_.output.columns);
    }

  private:
    const Plan<S, E>& plan_;
    const WeightGrad& p_;

  public:
    Sums sums; // [filter][channel of the window]

  private:
    Gradient<S, E> grad_;
    std::vector<E> images_; // [image][strip][pixel][row][channel], zero around each
    std::vector<S> zeros_;  // a row of x
    std::vector<S> strip_;  // before its conversion

    static constexpr bool converts() { return !std::is_same_v<S, E>; }

    void copy_image(const S* x, E* to) {
        std::vector<const S*> rows(static_cast<size_t>(plan_.joint));
        to += p_.padding.columns * plan_.joint * p_.channels;
        for (int64_t strip = 0; strip < plan_.strips; ++strip, to += plan_.strip()) {
            for (int64_t r = 0; r < plan_.joint; ++r) {
                const int64_t row =
                    strip * plan_.strip_step + r * p_.dilation.rows - p_.padding.rows;
                const bool inside = row >= 0 && row < p_.input.rows;
                rows[static_cast<size_t>(r)] = inside ? x + row * p_.x_row : zeros_.data();
            }
            if (plan_.joint > 1)
                join(rows, to);
            else if (rows[0] != zeros_.data())
                copy_row_of_x<S, E>(p_, plan_.loops, rows[0], {to, p_.channels});
        }
    }

    void join(const std::vector<const S*>& rows, E* to) {
        if constexpr (converts()) {
            interleave(rows, p_.x_pixel, strip_.data(), p_.input.columns, p_.channels);
            const int64_t size = static_cast<int64_t>(strip_.size());
            plan_.loops.widen({strip_.data(), 0}, {to, 0}, 1, size);
        } else {
            interleave(rows, p_.x_pixel, to, p_.input.columns, p_.channels);
        }
    }
};

} // namespace

template <typename S, typename E>
void weight_grad_small_channels(const WeightGrad& p, int threads, const Loops<S, E>& loops) {
    const Plan plan(p, loops);
    const Totals totals = add_images<Worker<S, E>>(plan, p, threads);
    float* to = p.out;
    for (int64_t filter = 0; filter < p.filters; ++filter)
        for (int64_t r = 0; r < p.kernel.rows; ++r)
            for (int64_t s = 0; s < p.kernel.columns; ++s, to += p.channels) {
                for (int64_t c = 0; c < p.channels; ++c)
                    to[c] = totals.at(plan.position(filter, r, s) + c);
            }
}

INSTANTIATE(weight_grad_small_channels);

} // namespace maskedconv
