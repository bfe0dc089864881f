// The roles of the usual weight gradient are reversed: x, the large operand, is read once, and
// taps, strides and zero padding act on the few channels of grad_output that belong to learned
// filters:
//   dW[f, r, s, c] = sum over input pixels of x[h, w, c] * grad[f, (h + p - r d) / stride, ...].
// So the prologue on x needs no padding mask, either.
#include "weight_grad/algorithms.h"

namespace maskedconv {
namespace {

// Distance at which x is prefetched, in pixels: longer if a tile takes only a part of a pixel's
// channels at once, 0 if x may still be in a cache, as prefetching then only costs time.
int64_t pixels_ahead(const WeightGrad& p, int64_t element) {
    constexpr int64_t kCachedBytes = 6'000'000;
    if (p.batch * p.input.rows * p.input.columns * p.channels * element < kCachedBytes)
        return 0;
    return p.channels > 4 * kLane ? 256 : 64;
}

// The parameters that all images of a problem share.
template <typename S, typename E> struct Plan {
    static constexpr int64_t kElement = sizeof(E), kFactor = sizeof(float); // bytes
    const WeightGrad& p;
    int64_t channels;             // padded to full vectors
    bool copies_x;                // few channels, short rows, converting or the prologue
    int64_t overlap;              // channels that the last two vectors share if x is not copied
    std::vector<int64_t> offsets; // see TileInput
    bool joint_columns;           // taps of one kernel row are neighbours in the packed gradient
    PackedRows grad_rows;         // with margins of zeros
    bool copies_grad;             // several taps or converting: it goes through a buffer, too
    int64_t block_rows;           // of x
    int64_t images;               // at once
    const Loops<S, E>& loops;

    Plan(const WeightGrad& problem, const Loops<S, E>& inner_loops, bool exact)
        : p(problem), loops(inner_loops) {
        channels = ceil_div(p.channels, kLane) * kLane;
        copies_x = p.channels < kLane || !std::is_same_v<S, E> || p.scale != nullptr ||
                   (p.input.columns <= kShortRow && p.filters >= kLane && !is_dense());
        overlap = copies_x ? 0 : channels - p.channels;
        for (int64_t channel = 0; channel < channels; channel += kLane)
            offsets.push_back(channel + kLane < channels ? channel : channel - overlap);
        joint_columns = !exact && p.stride.columns == 1 && p.dilation.columns == 1;
        grad_rows = joint_columns ? rows_for_joint_columns() : PackedRows{p.output.columns};
        const bool read_once =
            p.kernel.rows * p.kernel.columns == 1 && grad_rows.pixels == p.output.columns;
        copies_grad = !read_once || !Gradient<S, E>::is_readable(p);
        const int64_t row = std::max<int64_t>(1, channels * p.input.columns * kElement);
        block_rows = std::max<int64_t>(1, std::min(kCacheBytes / row, p.input.rows));
        // Each pass loads and stores all sums. If they do not fit the cache, this dominates the
        // time: a pass then takes more images, and a block reads only a part of their gradient.
        const bool fit = sums() * kFactor <= kCacheBytes;
        const int64_t grad = fit ? grad_image() * kFactor : 0;
        images = block_rows < p.input.rows ? 1 : images_at_once(p, row * p.input.rows + grad);
    }

    int64_t sums() const { return p.filters * p.kernel.rows * p.kernel.columns * channels; }

    // Offset from an input pixel to the first output pixel that its taps meet.
    int64_t first_tap() const { return p.padding.columns - (p.kernel.columns - 1); }

  private:
    // A loop over so few pixels takes longer than to copy them for many filters.
    static constexpr int64_t kShortRow = 32 / kElement;
    // Narrow maps, dense in memory, are one long row if each pixel has all its taps' gradients.
    // With few channels, packing these takes longer than is saved.
    static constexpr int64_t kNarrow = 16;
    static constexpr int64_t kManyChannels = 4 * kLane;

    int64_t grad_image() const {
        return p.output.rows * grad_rows.pixels * grad_rows.taps * p.filters;
    }

    PackedRows rows_for_joint_columns() const {
        const int64_t columns = p.input.columns;
        if (p.kernel.columns > 1 && columns <= kNarrow && channels >= kManyChannels &&
            (copies_x || is_dense()))
            return {columns, p.kernel.columns, first_tap()};
        const int64_t left = std::max<int64_t>(0, -first_tap());
        const int64_t last = columns - 1 + p.padding.columns;
        return {left + std::max(p.output.columns, last + 1), 1, -left};
    }

    bool is_dense() const { return p.x_row == p.input.columns * p.x_pixel; }
};

// One thread's buffers and sums.
template <typename S, typename E> class Worker {
  public:
    explicit Worker(const Plan<S, E>& plan)
        : plan_(plan), p_(plan.p), sums(plan.sums()), grad_(p_, plan.loops, plan.grad_rows),
          x_(static_cast<size_t>(plan.copies_x ? plan.images * x_image() : 0)) {
        if (plan.copies_grad)
            grad_.allocate(plan.images);
    }

    void add(int64_t image, int64_t count) {
        tile_.images = count;
        grad_.set(tile_, image, count);
        const S* x = static_cast<const S*>(p_.x) + image * p_.x_image;
        for (int64_t row = 0; row < p_.input.rows; row += plan_.block_rows)
            add_rows(x, row, std::min(row + plan_.block_rows, p_.input.rows));
    }

  private:
    const Plan<S, E>& plan_;
    const WeightGrad& p_;

  public:
    Sums sums; // [kernel row][column of it][filter][channels]

  private:
    Gradient<S, E> grad_;
    std::vector<E> x_;    // [image][row of the block][pixel][channels]
    TileInput<E> tile_{}; // the images' gradient

    // Elements of the buffer for a block of an image.
    int64_t x_image() const { return plan_.block_rows * p_.input.columns * plan_.channels; }

    void copy_x(const S* x, E* to, int64_t row, int64_t end) {
        for (; row < end; ++row, to += p_.input.columns * plan_.channels)
            copy_row_of_x<S, E>(p_, plan_.loops, x + row * p_.x_row, {to, plan_.channels});
    }

    void add_rows(const S* x, int64_t row, int64_t end) {
        TileInput<E> tile = tile_;
        tile.channels = plan_.channels;
        tile.offsets = plan_.offsets.data();
        if (plan_.copies_x) {
            for (int64_t i = 0; i < tile.images; ++i)
                copy_x(x + i * p_.x_image, x_.data() + i * x_image(), row, end);
            tile.x_image = x_image();
            tile.x_row = p_.input.columns * plan_.channels;
            tile.x_pixel = plan_.channels;
            tile.x = x_.data();
        } else {
            tile.x_image = p_.x_image;
            tile.x_row = p_.x_row;
            tile.x_pixel = p_.x_pixel;
            tile.x_ahead = pixels_ahead(p_, plan_.kElement) * p_.x_pixel;
            if constexpr (std::is_same_v<S, E>)
                tile.x = x + row * p_.x_row;
        }
        for (int64_t r = 0; r < p_.kernel.rows; ++r)
            add_tap_row(tile, r, row, end);
        sums.count(tile.images * (end - row) * p_.input.columns);
    }

    // Output rows o whose input row o * stride + r * dilation - padding is in [row, end).
    void add_tap_row(TileInput<E> tile, int64_t r, int64_t row, int64_t end) {
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
        tile.sum = sums.floats() + r * p_.kernel.columns * p_.filters * plan_.channels;
        if (plan_.joint_columns)
            return add_joint_columns(tile);
        for (int64_t s = 0; s < p_.kernel.columns; ++s)
            add_one_tap(tile, s);
    }

    // Every input pixel w meets, for the taps from the last to the first, the neighbouring output
    // pixels w + p - s: their filters are the columns.
    void add_joint_columns(TileInput<E> tile) {
        tile.grad += (plan_.first_tap() - plan_.grad_rows.shift) * tile.grad_pixel;
        tile.pixels = p_.input.columns;
        tile.columns = p_.kernel.columns * p_.filters;
        plan_.loops.tile(tile);
    }

    void add_one_tap(TileInput<E> tile, int64_t s) {
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
        plan_.loops.tile(tile);
    }
};

// One filter and tap of the result.
template <typename S, typename E>
void store_row(const Plan<S, E>& plan, const Totals& totals, int64_t row) {
    const WeightGrad& p = plan.p;
    const int64_t filter = row / (p.kernel.rows * p.kernel.columns);
    const int64_t r = row / p.kernel.columns % p.kernel.rows;
    const int64_t s = row % p.kernel.columns;
    const int64_t tap = r * p.kernel.columns + (p.kernel.columns - 1 - s);
    const int64_t from = (tap * p.filters + filter) * plan.channels;
    float* to = p.out + row * p.channels;
    const int64_t straight = plan.overlap > 0 ? plan.channels - kLane : p.channels;
    for (int64_t c = 0; c < p.channels; ++c)
        to[c] = totals.at(from + c + (c < straight ? 0 : plan.overlap));
}

// Adds up images, and puts taps and filters in the order of the result.
template <typename S, typename E> void run(const Plan<S, E>& plan, int threads) {
    const Totals totals = add_images<Worker<S, E>>(plan, plan.p, threads);
    constexpr int64_t kWorthThreads = 65536;
    const int64_t rows = plan.p.filters * plan.p.kernel.rows * plan.p.kernel.columns;
    for_shares(rows, rows * plan.p.channels < kWorthThreads ? 1 : threads,
               [&](int, int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row)
                       store_row(plan, totals, row);
               });
}

// One tap without padding: the same problem on the pixels that it reads, with stride 1.
WeightGrad without_stride(WeightGrad p) {
    const bool one_tap = p.kernel.rows == 1 && p.kernel.columns == 1;
    if (!one_tap || p.padding.rows > 0 || p.padding.columns > 0)
        return p;
    p.x_row *= p.stride.rows, p.x_pixel *= p.stride.columns;
    p.input = p.output, p.stride = {1, 1};
    return p;
}

} // namespace

template <typename S, typename E>
void weight_grad_by_taps(const WeightGrad& problem, int threads, const Loops<S, E>& loops) {
    const WeightGrad p = without_stride(problem);
    run(Plan(p, loops, false), threads);
}

template <typename S, typename E>
void weight_grad_exactly(const WeightGrad& p, int threads, const Loops<S, E>& loops) {
    run(Plan(p, loops, true), threads);
}

INSTANTIATE(weight_grad_by_taps);
INSTANTIATE(weight_grad_exactly);

} // namespace maskedconv
