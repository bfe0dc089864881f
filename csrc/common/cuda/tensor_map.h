// The contents of a tensor map of the Tensor Memory Accelerator (TMA). Host code, no CUDA.
//
// Rules: CUDA driver API, "cuTensorMapEncodeTiled".
#pragma once

#include <cstdint>
#include <initializer_list>

namespace maskedconv {

// Images of 16-bit elements: channels side by side; the other strides in elements, any for a size
// of 1.
struct Images {
    const void* data;
    int64_t channels, columns, rows, images;
    int64_t column_stride, row_stride, image_stride;
};

// Size of one copy, in elements.
struct Box {
    int64_t channels, columns, rows, images;
};

enum class Swizzle { none, bytes128 };

constexpr int kMapSizes = 4; // channels, columns, rows, images

// Arguments of cuTensorMapEncodeTiled; `steps` are bytes to the next column, row and image.
struct TensorMapArguments {
    const void* address;
    uint64_t sizes[kMapSizes], steps[kMapSizes - 1];
    uint32_t box[kMapSizes];
    Swizzle swizzle;
};

constexpr int kMapElement = 2;    // bytes of an element
constexpr int kMapAlignment = 16; // bytes of the address and of each step
constexpr int kMostBox = 256;     // elements of a size of the box

// For maps that are not refused. The step of a size of 1 is not used, but must keep to the rules.
inline TensorMapArguments tensor_map_arguments(const Images& from, const Box& box,
                                               Swizzle swizzle) {
    const int64_t sizes[] = {from.channels, from.columns, from.rows, from.images};
    const int64_t strides[] = {from.column_stride, from.row_stride, from.image_stride};
    const int64_t parts[] = {box.channels, box.columns, box.rows, box.images};
    TensorMapArguments a{};
    a.address = from.data, a.swizzle = swizzle;
    for (int i = 0; i < kMapSizes; ++i)
        a.sizes[i] = sizes[i], a.box[i] = static_cast<uint32_t>(parts[i]);
    uint64_t extent = from.channels * kMapElement;
    for (int i = 0; i < kMapSizes - 1; ++i) {
        const uint64_t least = (extent + kMapAlignment - 1) / kMapAlignment * kMapAlignment;
        a.steps[i] = sizes[i + 1] == 1 ? least : strides[i] * kMapElement;
        extent = a.steps[i] * a.sizes[i + 1];
    }
    return a;
}

// The rule that a map would break, or an empty text.
inline const char* tensor_map_refusal(const Images& from, const Box& box, Swizzle swizzle) {
    constexpr int64_t kMostSize = int64_t{1} << 32, kMostStep = int64_t{1} << 40;
    if (reinterpret_cast<uintptr_t>(from.data) % kMapAlignment != 0)
        return "its memory does not begin at a multiple of 16 bytes";
    const int64_t sizes[] = {from.channels, from.columns, from.rows, from.images};
    for (const int64_t size : sizes)
        if (size < 1 || size > kMostSize)
            return "a size is not within 1 to 2^32";
    for (const int64_t stride : {from.column_stride, from.row_stride, from.image_stride})
        if (stride < 0 || stride >= kMostStep / kMapElement)
            return "its pixels, rows or images are 2^40 bytes or more apart";
    const TensorMapArguments a = tensor_map_arguments(from, box, swizzle);
    uint64_t extent = a.sizes[0] * kMapElement;
    for (int i = 0; i < kMapSizes - 1; ++i) {
        if (a.steps[i] % kMapAlignment != 0)
            return "its pixels, rows or images are not a multiple of 16 bytes apart";
        if (a.steps[i] < extent)
            return "its pixels, rows and images do not lie one behind the other";
        if (a.steps[i] >= kMostStep)
            return "its pixels, rows or images are 2^40 bytes or more apart";
        extent = a.steps[i] * a.sizes[i + 1];
    }
    for (const int64_t size : {box.channels, box.columns, box.rows, box.images})
        if (size < 1 || size > kMostBox)
            return "a size of its copies is not within 1 to 256";
    if (box.channels * kMapElement % kMapAlignment != 0)
        return "the bytes of a copied pixel are not a multiple of 16";
    if (swizzle == Swizzle::bytes128 && box.channels * kMapElement > 128)
        return "a copied pixel has more than 128 bytes";
    return "";
}

// Bytes that a copy brings, those beyond the images included: they are zeros.
inline int64_t box_bytes(const Box& box) {
    return box.channels * box.columns * box.rows * box.images * kMapElement;
}

} // namespace maskedconv
