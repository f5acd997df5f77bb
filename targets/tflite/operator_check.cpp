#include "operator_check.h"

#include <algorithm>
#include <cstdint>
#include <map>

namespace edgevit::litert {
namespace {

using Shape = std::vector<std::int32_t>;

// TensorType and ActivationFunctionType of the schema.
constexpr int kFloat = 0, kInt32Type = 2, kUInt8Type = 3, kInt8Type = 9;
constexpr int kMostActivations = 5;
constexpr std::int32_t kMostSteps = 1 << 16;  // of a stride, a window, a dilation
constexpr std::int8_t kSame = 0, kValid = 1;
// XNNPACK makes no int8 convolution whose results are this many steps a step of the sum, or more;
// a LiteRT of 2.3 that gives up there frees the tables of a net's activations twice.
constexpr double kMostStepsPerSum = 256.0;

// An operator with its tensors at hand.
class Checked {
  public:
    Checked(const FlatFile& file, const ModelGraph& graph, const ModelOperator& made)
        : file_(file), graph_(graph), made_(made) {}

    void require(bool condition) const {
        file_.require(condition, "an operator contradicts its tensors");
    }

    std::size_t input_count() const { return made_.inputs.size(); }
    const ModelTensor& input(std::size_t index) const {
        require(index < made_.inputs.size() && made_.inputs[index] >= 0);
        return graph_.tensors[static_cast<std::size_t>(made_.inputs[index])];
    }
    const ModelTensor& output() const {
        require(made_.outputs.size() == 1);
        return graph_.tensors[static_cast<std::size_t>(made_.outputs.front())];
    }
    bool has_input(std::size_t index) const {
        return index < made_.inputs.size() && made_.inputs[index] >= 0;
    }

    // The options, which must be of that BuiltinOptions type.
    const FlatTable& options(int type) const {
        require(made_.options_type == type && made_.options);
        return *made_.options;
    }
    // The same where the options may be left out.
    const FlatTable* options_if_any(int type) const {
        require(made_.options_type == type || made_.options_type == 0);
        return made_.options ? &*made_.options : nullptr;
    }

    // The values of an int32 constant.
    std::vector<std::int32_t> constant(std::size_t index) const {
        const ModelTensor& tensor = input(index);
        require(tensor.is_constant() && tensor.type == kInt32Type);
        std::vector<std::int32_t> values(tensor.element_count);
        std::memcpy(values.data(), file_.data() + tensor.data.first, tensor.data.size);
        return values;
    }

    void require_quantized(const ModelTensor& tensor) const {
        const bool is_quantized = tensor.type == kInt8Type || tensor.type == kUInt8Type;
        require(is_quantized ? tensor.scale.size() == 1 : tensor.scale.empty());
    }

    // Input and output of one type, each with the quantization that it needs.
    void require_same_type() const {
        require(input(0).type == output().type);
        require_quantized(input(0));
        require_quantized(output());
    }

    void require_activation(std::int8_t activation) const {
        require(activation >= 0 && activation <= kMostActivations);
    }

  private:
    const FlatFile& file_;
    const ModelGraph& graph_;
    const ModelOperator& made_;
};

struct Window {
    std::int32_t size, stride, dilation;
};

std::int32_t covered(const Checked& op, std::int32_t side, const Window& window,
                     std::int8_t padding) {
    for (const std::int32_t steps : {window.size, window.stride, window.dilation}) {
        op.require(steps >= 1 && steps <= kMostSteps);
    }
    op.require(padding == kSame || padding == kValid);
    if (padding == kSame) {
        return (side - 1) / window.stride + 1;
    }
    const std::int64_t extent = std::int64_t{window.size - 1} * window.dilation + 1;
    op.require(extent <= side);
    return static_cast<std::int32_t>((side - extent) / window.stride + 1);
}

void require_map(const Checked& op, const ModelTensor& tensor) {
    op.require(tensor.shape.size() == 4);
}

void check_weights(const Checked& op, const ModelTensor& data, const ModelTensor& weight,
                   std::size_t axis, const ModelTensor* bias) {
    // Floats have float weights, or int8 ones with a scale a channel: LiteRT then quantizes the
    // floats as it runs.
    const bool is_float = data.type == kFloat;
    const bool has_float_weights = is_float && weight.type == kFloat;
    op.require(weight.is_constant() && (has_float_weights || weight.type == kInt8Type));
    const auto channels = static_cast<std::size_t>(weight.shape[axis]);
    const std::size_t scales = weight.scale.size();
    const bool is_by_channel = scales == channels && weight.axis == static_cast<std::int32_t>(axis);
    op.require(has_float_weights ? scales == 0 : is_by_channel || (scales == 1 && !is_float));
    op.require(std::all_of(weight.zero_point.begin(), weight.zero_point.end(),
                           [](std::int64_t zero_point) { return zero_point == 0; }));
    if (bias != nullptr) {
        op.require(bias->is_constant() && bias->type == (is_float ? kFloat : kInt32Type) &&
                   bias->element_count == channels);
    }
}

void check_scales(const Checked& op, const ModelTensor& data, const ModelTensor& weight) {
    if (data.type != kInt8Type) {
        return;
    }
    const double from = data.scale.front(), to = op.output().scale.front();
    op.require(std::all_of(weight.scale.begin(), weight.scale.end(),
                           [&](float scale) { return from * scale / to < kMostStepsPerSum; }));
}

struct ConvolutionFields {
    int type;
    std::size_t activation, dilation_width, dilation_height;
};
constexpr ConvolutionFields kConvolution = {1, 3, 4, 5}, kDepthwise = {2, 4, 5, 6};

void check_convolution(const Checked& op, const ConvolutionFields& fields) {
    op.require(op.input_count() >= 2 && op.input_count() <= 3);
    const ModelTensor &data = op.input(0), &weight = op.input(1), &out = op.output();
    require_map(op, data), require_map(op, weight), require_map(op, out);
    op.require_same_type();
    const bool is_depthwise = fields.type == kDepthwise.type;
    const std::size_t axis = is_depthwise ? 3 : 0;
    check_weights(op, data, weight, axis, op.has_input(2) ? &op.input(2) : nullptr);
    check_scales(op, data, weight);
    const FlatTable& options = op.options(fields.type);
    op.require_activation(options.number<std::int8_t>(fields.activation));
    const auto padding = options.number<std::int8_t>(0);
    const Window columns = {weight.shape[2], options.number<std::int32_t>(1),
                            options.number<std::int32_t>(fields.dilation_width, 1)};
    const Window rows = {weight.shape[1], options.number<std::int32_t>(2),
                         options.number<std::int32_t>(fields.dilation_height, 1)};
    const std::int32_t channels = weight.shape[axis], in = data.shape[3];
    if (is_depthwise) {
        const auto multiplier = options.number<std::int32_t>(3);
        op.require(weight.shape[0] == 1 && multiplier >= 1 &&
                   std::int64_t{multiplier} * in == channels);
    } else {
        op.require(in % weight.shape[3] == 0 && channels % (in / weight.shape[3]) == 0);
    }
    op.require(out.shape == Shape{data.shape[0], covered(op, data.shape[1], rows, padding),
                                  covered(op, data.shape[2], columns, padding), channels});
}

void check_transposed(const Checked& op) {
    op.require(op.input_count() >= 3 && op.input_count() <= 4);
    const ModelTensor &weight = op.input(1), &data = op.input(2), &out = op.output();
    require_map(op, data), require_map(op, weight), require_map(op, out);
    op.require(data.type == out.type);
    op.require_quantized(data), op.require_quantized(out);
    check_weights(op, data, weight, 0, op.has_input(3) ? &op.input(3) : nullptr);
    check_scales(op, data, weight);
    op.require(op.constant(0) == out.shape && out.shape[3] == weight.shape[0] &&
               data.shape[3] == weight.shape[3] && data.shape[0] == out.shape[0]);
    const FlatTable& options = op.options(49);
    op.require_activation(options.number<std::int8_t>(3));
    const auto padding = options.number<std::int8_t>(0);
    const Window columns = {weight.shape[2], options.number<std::int32_t>(1), 1};
    const Window rows = {weight.shape[1], options.number<std::int32_t>(2), 1};
    op.require(covered(op, out.shape[1], rows, padding) == data.shape[1] &&
               covered(op, out.shape[2], columns, padding) == data.shape[2]);
}

void check_pool(const Checked& op) {
    op.require(op.input_count() == 1);
    const ModelTensor &data = op.input(0), &out = op.output();
    require_map(op, data), require_map(op, out);
    op.require_same_type();
    const FlatTable& options = op.options(5);
    op.require_activation(options.number<std::int8_t>(5));
    const auto padding = options.number<std::int8_t>(0);
    const Window columns = {options.number<std::int32_t>(3), options.number<std::int32_t>(1), 1};
    const Window rows = {options.number<std::int32_t>(4), options.number<std::int32_t>(2), 1};
    op.require(out.shape == Shape{data.shape[0], covered(op, data.shape[1], rows, padding),
                                  covered(op, data.shape[2], columns, padding), data.shape[3]});
}

// Two tensors value by value, a side of 1 standing for every place.
void check_pairs(const Checked& op, int options_type) {
    op.require(op.input_count() == 2);
    const ModelTensor &first = op.input(0), &second = op.input(1), &out = op.output();
    op.require_same_type();
    op.require(second.type == out.type);
    op.require_quantized(second);
    const Shape* sides[] = {&first.shape, &second.shape};
    for (std::size_t i = 0; i < out.shape.size(); ++i) {  // from the last side on
        std::int32_t widest = 1;
        for (const Shape* shape : sides) {
            op.require(shape->size() <= out.shape.size());
            const std::int32_t side = i < shape->size() ? (*shape)[shape->size() - 1 - i] : 1;
            op.require(side == 1 || widest == 1 || side == widest);
            widest = std::max(widest, side);
        }
        op.require(out.shape[out.shape.size() - 1 - i] == widest);
    }
    op.require(first.shape.size() <= out.shape.size() && second.shape.size() <= out.shape.size());
    if (const FlatTable* options = op.options_if_any(options_type)) {
        op.require_activation(options->number<std::int8_t>(0));
    }
}

void check_values(const Checked& op) {
    op.require(op.input_count() == 1 && op.input(0).shape == op.output().shape);
    op.require_same_type();
}

// QUANTIZE and DEQUANTIZE.
void check_conversion(const Checked& op) {
    op.require(op.input_count() == 1 && op.input(0).shape == op.output().shape);
    op.require_quantized(op.input(0));
    op.require_quantized(op.output());
}

void check_reshape(const Checked& op) {
    op.require(op.input(0).element_count == op.output().element_count);
    op.require_same_type();
    if (op.has_input(1)) {
        op.require(op.constant(1) == op.output().shape);
    }
    if (const FlatTable* options = op.options_if_any(17)) {
        const Shape wanted = options->vector<std::int32_t>(0).copy();
        op.require(wanted.empty() || wanted == op.output().shape);
    }
}

void check_concatenation(const Checked& op) {
    op.require(op.input_count() >= 1);
    const FlatTable& options = op.options(10);
    op.require_activation(options.number<std::int8_t>(1));
    const auto axis = options.number<std::int32_t>(0);
    Shape joined = op.input(0).shape;
    op.require(axis >= 0 && static_cast<std::size_t>(axis) < joined.size());
    const auto place = static_cast<std::size_t>(axis);
    std::int64_t length = 0;
    for (std::size_t i = 0; i < op.input_count(); ++i) {
        Shape shape = op.input(i).shape;
        op.require(op.input(i).type == op.output().type && shape.size() == joined.size());
        op.require_quantized(op.input(i));
        length += shape[place];
        shape[place] = joined[place];
        op.require(shape == joined);
    }
    op.require_same_type();
    joined[place] = static_cast<std::int32_t>(std::min<std::int64_t>(length, INT32_MAX));
    op.require(op.output().shape == joined);
}

void check_mean(const Checked& op) {
    op.require(op.input_count() == 2);
    op.require_same_type();
    Shape reduced = op.input(0).shape;
    for (const std::int32_t axis : op.constant(1)) {
        op.require(axis >= 0 && static_cast<std::size_t>(axis) < reduced.size());
        reduced[static_cast<std::size_t>(axis)] = 0;
    }
    if (op.options(27).number<std::uint8_t>(0) != 0) {
        std::replace(reduced.begin(), reduced.end(), 0, 1);
    } else {
        reduced.erase(std::remove(reduced.begin(), reduced.end(), 0), reduced.end());
    }
    op.require(op.output().shape == reduced);
}

void check_pad(const Checked& op) {
    op.require(op.input_count() >= 2 && op.input_count() <= 3);
    op.require_same_type();
    const std::vector<std::int32_t> amounts = op.constant(1);
    Shape padded = op.input(0).shape;
    op.require(amounts.size() == 2 * padded.size() && padded.size() == op.output().shape.size());
    for (std::size_t i = 0; i < padded.size(); ++i) {
        const std::int64_t before = amounts[2 * i], after = amounts[2 * i + 1];
        op.require(before >= 0 && after >= 0 && before + padded[i] + after == op.output().shape[i]);
    }
    if (op.has_input(2)) {
        op.require(op.input(2).type == op.output().type && op.input(2).element_count == 1);
    }
}

void check_transpose(const Checked& op) {
    op.require(op.input_count() == 2);
    op.require_same_type();
    const Shape& in = op.input(0).shape;
    const std::vector<std::int32_t> order = op.constant(1);
    std::vector<bool> seen(in.size());
    op.require(order.size() == in.size() && op.output().shape.size() == in.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
        op.require(order[i] >= 0 && static_cast<std::size_t>(order[i]) < in.size());
        const auto axis = static_cast<std::size_t>(order[i]);
        op.require(!seen[axis] && op.output().shape[i] == in[axis]);
        seen[axis] = true;
    }
}

void check_slice(const Checked& op) {
    op.require(op.input_count() == 4);
    op.require_same_type();
    const Shape& in = op.input(0).shape;
    const std::vector<std::int32_t> begin = op.constant(1), end = op.constant(2),
                                    step = op.constant(3);
    const FlatTable& options = op.options(32);
    const auto begin_mask = options.number<std::int32_t>(0),
               end_mask = options.number<std::int32_t>(1);
    for (std::size_t field = 2; field <= 4; ++field) {
        op.require(options.number<std::int32_t>(field) == 0);
    }
    op.require(options.number<std::uint8_t>(5) == 0);
    op.require(begin.size() == in.size() && end.size() == in.size() && step.size() == in.size() &&
               op.output().shape.size() == in.size() && begin_mask >= 0 && end_mask >= 0);
    for (std::size_t i = 0; i < in.size(); ++i) {
        const std::int32_t first = (begin_mask >> i & 1) != 0 ? 0 : begin[i];
        const std::int32_t last = (end_mask >> i & 1) != 0 ? in[i] : end[i];
        op.require(step[i] >= 1 && step[i] <= kMostSteps && first >= 0 && first < last &&
                   last <= in[i] && op.output().shape[i] == (last - first - 1) / step[i] + 1);
    }
}

void check_resize(const Checked& op) {
    op.require(op.input_count() == 2);
    op.require_same_type();
    const ModelTensor &data = op.input(0), &out = op.output();
    require_map(op, data), require_map(op, out);
    op.require(op.constant(1) == std::vector<std::int32_t>{out.shape[1], out.shape[2]} &&
               data.shape[0] == out.shape[0] && data.shape[3] == out.shape[3]);
}

using Check = void (*)(const Checked&);

// By the schema's BuiltinOperator.
const std::map<int, Check>& checks() {
    static const std::map<int, Check> known = {
        {0, [](const Checked& op) { check_pairs(op, 11); }},  // ADD
        {1, check_pool},                                      // AVERAGE_POOL_2D
        {2, check_concatenation},
        {3, [](const Checked& op) { check_convolution(op, kConvolution); }},  // CONV_2D
        {4, [](const Checked& op) { check_convolution(op, kDepthwise); }},    // DEPTHWISE_CONV_2D
        {6, check_conversion},                                                // DEQUANTIZE
        {14, check_values},                                                   // LOGISTIC
        {17, check_pool},                                                     // MAX_POOL_2D
        {18, [](const Checked& op) { check_pairs(op, 21); }},                 // MUL
        {19, check_values},                                                   // RELU
        {21, check_values},                                                   // RELU6
        {22, check_reshape},
        {23, check_resize},  // RESIZE_BILINEAR
        {25, check_values},  // SOFTMAX
        {28, check_values},  // TANH
        {34, check_pad},     // PAD
        {39, check_transpose},
        {40, check_mean},
        {41, [](const Checked& op) { check_pairs(op, 28); }},  // SUB
        {42, [](const Checked& op) { check_pairs(op, 29); }},  // DIV
        {45, check_slice},                                     // STRIDED_SLICE
        {60, check_pad},                                       // PADV2
        {67, check_transposed},                                // TRANSPOSE_CONV
        {75, check_values},                                    // SQRT
        {97, check_resize},                                    // RESIZE_NEAREST_NEIGHBOR
        {114, check_conversion},                               // QUANTIZE
        {117, check_values},                                   // HARD_SWISH
        {150, check_values},                                   // GELU
    };
    return known;
}

}  // namespace

void check_operator(const FlatFile& file, const ModelGraph& graph, const ModelOperator& made) {
    const auto check = checks().find(made.code);
    if (check != checks().end()) {
        check->second(Checked(file, graph, made));
    }
}

}  // namespace edgevit::litert
