// How LiteRT split the graph, read from what its profiler saw of one inference.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "litert_session.h"

namespace edgevit::litert {

// `ops` is the number of ops in the file's graph, each run holds the events of one inference.
//
// A node that the runtime invokes itself appears with its index in the graph; so an op of the graph
// that does not appear was taken by a delegate, and that makes `delegated` a count, not a guess.
// XNNPACK lists the ops inside each of its nodes from 0 on: each new 0 starts a partition. A
// delegate that lists none appears as a node with an index beyond the graph's own.
OpReport report_ops(std::size_t ops, const std::vector<std::vector<Session::Event>>& runs);

}  // namespace edgevit::litert
