package edgevit.android

/**
 * One class of an answer.
 *
 * [logit] is the network's own figure, the same that `edgevit validate` compares. [probability] is
 * the softmax of all logits: it adds up to 1 over the classes, also for a picture of none of them.
 * [ranOn] says what computed it.
 */
data class Classification(
    val index: Int,
    val label: String,
    val logit: Float,
    val probability: Float,
    val ranOn: RanOn
)
