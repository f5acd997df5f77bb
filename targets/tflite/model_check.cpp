#include "model_check.h"

#include "dispatch_check.h"
#include "model_reader.h"
#include "operator_check.h"

namespace edgevit::litert {
namespace {

const ModelTensor* tensor_at(const ModelGraph& graph, std::int32_t index) {
    return index >= 0 && static_cast<std::size_t>(index) < graph.tensors.size()
               ? &graph.tensors[static_cast<std::size_t>(index)]
               : nullptr;
}

// Each operator reads what is there before it, and each tensor is made once.
void check_order(const FlatFile& file, const ModelGraph& graph) {
    std::vector<bool> is_known(graph.tensors.size());
    for (std::size_t i = 0; i < graph.tensors.size(); ++i) {
        is_known[i] = graph.tensors[i].is_constant();
    }
    const auto make = [&](std::int32_t index) {
        file.require(tensor_at(graph, index) != nullptr, "it refers to a tensor that is not there");
        const auto place = static_cast<std::size_t>(index);
        file.require(!is_known[place], "a tensor is made twice");
        is_known[place] = true;
    };
    for (const std::int32_t index : graph.inputs) {
        make(index);
    }
    for (const ModelOperator& made : graph.operators) {
        for (const std::int32_t index : made.inputs) {
            file.require(index == -1 || (tensor_at(graph, index) != nullptr &&
                                         is_known[static_cast<std::size_t>(index)]),
                         "an operator reads what is not there");
        }
        for (const std::int32_t index : made.outputs) {
            make(index);
        }
    }
    for (const std::int32_t index : graph.outputs) {
        file.require(
            tensor_at(graph, index) != nullptr && is_known[static_cast<std::size_t>(index)],
            "an output is never made");
    }
}

}  // namespace

void check_model(ByteView model, const std::string& where, Operators operators) {
    const FlatFile file(model, where);
    const ModelGraph graph = read_model(file);
    check_order(file, graph);
    for (const ModelOperator& made : graph.operators) {
        if (made.custom_code.empty()) {
            check_operator(file, graph, made);
            continue;
        }
        file.require(operators == Operators::dispatched_too && made.custom_code == kDispatchCode,
                     "it has an operator of its own kind");
        check_dispatch(file, made);
    }
}

}  // namespace edgevit::litert
