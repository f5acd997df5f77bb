#include "model_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/limits.h"

namespace edgevit::litert {
namespace {

constexpr std::size_t kMaxTensors = 100'000;
constexpr std::size_t kMaxBuffers = 100'000;
constexpr std::uint64_t kMaxTensorBytes = 1ULL << 31;

// Fields of the schema's tables, by number.
enum ModelField { kCodes = 1, kSubgraphs, kDescription, kBuffers, kMetadataBuffers, kMetadata };
enum MoreModelField { kSignatures = 7, kExternalGroups, kExternalBuffers };
enum CodeField { kOldCode, kCustomCode, kVersion, kCode };
enum GraphField { kTensors, kInputs, kOutputs, kOperators, kGraphName };
enum TensorField { kShape, kType, kBuffer, kName, kQuantization, kIsVariable, kSparsity };
enum MoreTensorField { kShapeSignature = 7, kHasRank, kVariants, kExternalBuffer };
enum QuantizationField { kMin, kMax, kScale, kZeroPoint, kDetailsType, kDetails, kAxis };
enum OperatorField { kOpcode, kReads, kMakes, kOptionsType, kOptions, kCustomOptions };
enum MoreOperatorField {
    kMutating = 7,
    kIntermediates,
    kLargeOffset,
    kLargeSize,
    kOptions2Type,
    kOptions2
};
enum BufferField { kData, kOffset, kSize };
enum SignatureField { kSignatureInputs, kSignatureOutputs, kSignatureKey, kSubgraph = 4 };

// By the schema's TensorType; 0: of no fixed size, or packed.
constexpr std::size_t kElementBytes[] = {4, 2, 4, 1, 8, 0, 1, 2, 8, 1, 8, 16, 8, 0, 0, 4, 2};

// BuiltinOptions that hold more than numbers, and the field that is a vector of `bytes` each.
struct VectorOption {
    int type;
    std::size_t field;
    std::size_t bytes;
};
constexpr VectorOption kVectorOptions[] = {{8, 5, 1}, {17, 0, 4}, {30, 0, 4}};
constexpr int kRefusedOptions[] = {3, 92, 93, 111, 115};  // embeddings, if, while, handles, buckets
constexpr int kMostOptions = 126;
constexpr int kCustomOperator = 32;  // of BuiltinOperator: the code's text says which

FlatVector<std::uint8_t> buffer_data(const FlatFile& file, const FlatTable& buffer) {
    const FlatVector<std::uint8_t> data = buffer.vector<std::uint8_t>(kData);
    // A model over 2 GB keeps its constants behind the tables; edgevit writes none.
    file.require(
        buffer.number<std::uint64_t>(kOffset) == 0 && buffer.number<std::uint64_t>(kSize) == 0,
        "a constant lies outside of the model");
    return data;
}

void read_shape(const FlatFile& file, const FlatTable& table, ModelTensor& tensor) {
    tensor.shape = table.vector<std::int32_t>(kShape).copy();
    file.require(tensor.shape.size() <= static_cast<std::size_t>(kMaxTensorRank),
                 "a tensor has too many sides");
    std::uint64_t elements = 1;
    for (const std::int32_t side : tensor.shape) {
        file.require(side >= 1, "a tensor has a side below 1");
        elements *= static_cast<std::uint64_t>(side);
        file.require(elements * tensor.element_bytes <= kMaxTensorBytes, "a tensor is over 2 GiB");
    }
    tensor.element_count = static_cast<std::size_t>(elements);
    const auto signature = table.vector<std::int32_t>(kShapeSignature);
    file.require(signature.size == 0 || signature.copy() == tensor.shape,
                 "a tensor's shape is not fixed");
}

void read_quantization(const FlatFile& file, const FlatTable& table, ModelTensor& tensor) {
    const std::optional<FlatTable> quantization = table.table(kQuantization);
    if (!quantization) {
        return;
    }
    quantization->vector<float>(kMin).copy();
    quantization->vector<float>(kMax).copy();
    file.require(
        quantization->number<std::uint8_t>(kDetailsType) == 0 && !quantization->field(kDetails, 4),
        "a tensor is quantized by a rule of its own");
    tensor.scale = quantization->vector<float>(kScale).copy();
    tensor.zero_point = quantization->vector<std::int64_t>(kZeroPoint).copy();
    tensor.axis = quantization->number<std::int32_t>(kAxis);
    const std::size_t count = tensor.scale.size();
    file.require(tensor.zero_point.size() == count, "a tensor's scales and zero-points differ");
    const auto rank = static_cast<std::int32_t>(tensor.shape.size());
    file.require(tensor.axis >= 0 && tensor.axis < std::max(rank, 1),
                 "a tensor is quantized along a side that it has not");
    if (count > 1) {
        const auto axis = static_cast<std::size_t>(tensor.axis);
        file.require(rank > 0 && static_cast<std::size_t>(tensor.shape[axis]) == count,
                     "a tensor has not as many scales as channels");
    }
    for (const float scale : tensor.scale) {
        file.require(std::isfinite(scale) && scale >= std::numeric_limits<float>::min(),
                     "a scale is no positive number");
    }
    for (const std::int64_t zero_point : tensor.zero_point) {
        file.require(zero_point >= -128 && zero_point <= 255, "a zero-point is out of range");
    }
}

ModelTensor read_tensor(const FlatFile& file, const FlatTable& table,
                        const std::vector<FlatTable>& buffers) {
    ModelTensor tensor;
    tensor.name = table.text(kName);
    tensor.type = table.number<std::uint8_t>(kType);  // a negative one is too large
    file.require(
        static_cast<std::size_t>(tensor.type) < sizeof kElementBytes / sizeof *kElementBytes &&
            kElementBytes[tensor.type] > 0,
        "a tensor has a type that edgevit does not write");
    tensor.element_bytes = kElementBytes[tensor.type];
    read_shape(file, table, tensor);
    file.require(table.number<std::uint8_t>(kIsVariable) == 0 && !table.field(kSparsity, 4) &&
                     !table.field(kVariants, 4) && !table.field(kExternalBuffer, 4),
                 "a tensor is variable, sparse or elsewhere");
    const auto buffer = table.number<std::uint32_t>(kBuffer);
    file.require(buffer < buffers.size(), "a tensor has a buffer that is not there");
    tensor.data = buffer_data(file, buffers[buffer]);
    file.require(
        !tensor.is_constant() || tensor.data.size == tensor.element_count * tensor.element_bytes,
        "a constant has not the size of its shape");
    read_quantization(file, table, tensor);
    return tensor;
}

void check_options(const FlatFile& file, const ModelOperator& made) {
    const int type = made.options_type;
    const bool is_refused = std::find(std::begin(kRefusedOptions), std::end(kRefusedOptions),
                                      type) != std::end(kRefusedOptions);
    file.require(type <= kMostOptions && !is_refused,
                 "an operator has options that edgevit does not write");
    if (!made.options) {
        return;
    }
    made.options->check_fields();
    for (const VectorOption& option : kVectorOptions) {
        if (option.type == type && option.bytes == 4) {
            made.options->vector<std::int32_t>(option.field).copy();
        } else if (option.type == type) {
            made.options->vector<std::uint8_t>(option.field).copy();
        }
    }
}

ModelOperator read_operator(const FlatFile& file, const FlatTable& table,
                            const std::vector<FlatTable>& codes) {
    ModelOperator made;
    const auto code = table.number<std::uint32_t>(kOpcode);
    file.require(code < codes.size(), "an operator has a code that is not there");
    made.code = std::max<int>(codes[code].number<std::int8_t>(kOldCode),
                              codes[code].number<std::int32_t>(kCode));
    made.version = codes[code].number<std::int32_t>(kVersion, 1);
    made.custom_code = codes[code].text(kCustomCode);
    file.require(made.code >= 0 && made.custom_code.empty() == (made.code != kCustomOperator),
                 "it has an operator of its own kind");
    made.inputs = table.vector<std::int32_t>(kReads).copy();
    made.outputs = table.vector<std::int32_t>(kMakes).copy();
    made.options_type = table.number<std::uint8_t>(kOptionsType);
    made.options = table.table(kOptions);
    file.require(made.options.has_value() == (made.options_type != 0),
                 "an operator's options are of no type");
    check_options(file, made);
    made.custom_options = table.vector<std::uint8_t>(kCustomOptions);
    const bool is_plain = (made.custom_options.size == 0 || !made.custom_code.empty()) &&
                          table.vector<std::uint8_t>(kMutating).size == 0 &&
                          table.vector<std::int32_t>(kIntermediates).size == 0 &&
                          table.number<std::uint64_t>(kLargeOffset) == 0 &&
                          table.number<std::uint64_t>(kLargeSize) == 0 &&
                          table.number<std::uint8_t>(kOptions2Type) == 0 &&
                          !table.field(kOptions2, 4);
    file.require(is_plain, "an operator has options that edgevit does not write");
    return made;
}

void check_signature(const FlatFile& file, const FlatTable& signature, const ModelGraph& graph) {
    signature.text(kSignatureKey);
    file.require(signature.number<std::uint32_t>(kSubgraph) == 0,
                 "a signature is of a graph that is not there");
    const std::pair<std::size_t, const std::vector<std::int32_t>*> sides[] = {
        {kSignatureInputs, &graph.inputs}, {kSignatureOutputs, &graph.outputs}};
    for (const auto& [field, tensors] : sides) {
        const std::vector<FlatTable> maps = signature.tables(field);
        file.require(maps.size() == tensors->size(),
                     "a signature has not the inputs and outputs of the graph");
        for (const FlatTable& map : maps) {
            const auto index = map.number<std::uint32_t>(1);
            file.require(!map.text(0).empty() &&
                             std::find(tensors->begin(), tensors->end(),
                                       static_cast<std::int32_t>(index)) != tensors->end(),
                         "a signature names a tensor that is no input or output");
        }
    }
}

ModelGraph read_graph(const FlatFile& file, const FlatTable& table,
                      const std::vector<FlatTable>& buffers, const std::vector<FlatTable>& codes) {
    ModelGraph graph;
    table.text(kGraphName);
    const std::vector<FlatTable> tensors = table.tables(kTensors);
    file.require(tensors.size() <= kMaxTensors, "it has too many tensors");
    for (const FlatTable& tensor : tensors) {
        graph.tensors.push_back(read_tensor(file, tensor, buffers));
    }
    for (const FlatTable& made : table.tables(kOperators)) {
        graph.operators.push_back(read_operator(file, made, codes));
    }
    graph.inputs = table.vector<std::int32_t>(kInputs).copy();
    graph.outputs = table.vector<std::int32_t>(kOutputs).copy();
    return graph;
}

}  // namespace

ModelGraph read_model(const FlatFile& file) {
    file.require(file.size() >= 8 && std::memcmp(file.data() + 4, "TFL3", 4) == 0,
                 "it does not begin as one");
    const FlatTable model(file, file.follow(0));
    file.require(model.number<std::uint32_t>(0) == 3, "its schema is not version 3");
    model.text(kDescription);
    const std::vector<FlatTable> buffers = model.tables(kBuffers), codes = model.tables(kCodes),
                                 graphs = model.tables(kSubgraphs);
    file.require(buffers.size() <= kMaxBuffers && !model.field(kExternalGroups, 4) &&
                     !model.field(kExternalBuffers, 4),
                 "it keeps constants elsewhere");
    for (const FlatTable& buffer : buffers) {
        buffer_data(file, buffer);
    }
    for (const std::int32_t buffer : model.vector<std::int32_t>(kMetadataBuffers).copy()) {
        file.require(buffer >= 0 && static_cast<std::size_t>(buffer) < buffers.size(),
                     "its metadata has a buffer that is not there");
    }
    for (const FlatTable& entry : model.tables(kMetadata)) {
        entry.text(0);
        file.require(entry.number<std::uint32_t>(1) < buffers.size(),
                     "its metadata has a buffer that is not there");
    }
    file.require(graphs.size() == 1, "it has not one graph");
    ModelGraph graph = read_graph(file, graphs.front(), buffers, codes);
    for (const FlatTable& signature : model.tables(kSignatures)) {
        check_signature(file, signature, graph);
    }
    return graph;
}

}  // namespace edgevit::litert
