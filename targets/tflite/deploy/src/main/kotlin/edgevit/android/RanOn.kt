package edgevit.android

/**
 * What computed an answer.
 *
 * @param accelerator "npu", "cpu" or "gpu": that alone, LiteRT computed nothing elsewhere.
 * @param whyNotNpu why it was not the NPU, where the module has programs for one and was free to choose;
 *     else null.
 */
data class RanOn(val accelerator: String, val whyNotNpu: String?)
