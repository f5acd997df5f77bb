package edgevit.android

/** One output of an artifact: its name, and its shape, outermost side first. */
class OutputTensor internal constructor(val name: String, val shape: List<Int>) {
    /** The product of the sides. */
    val elementCount: Int get() = shape.fold(1) { product, side -> product * side }
}
