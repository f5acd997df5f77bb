// A stand-in, not Gradle's: the names of the Android plugin's language that build.gradle.kts uses,
// so that kotlinc can read that file as the body of a function.
import java.io.File

class Plugins { fun id(plugin: String) = plugin }
class Dependency { var isTransitive = true }
class Dependencies {
    fun runtimeOnly(notation: String, action: Dependency.() -> Unit) =
        Dependency().action().let { notation }
}
class Ndk { val abiFilters = mutableSetOf<String>() }
class CmakeFlags { val arguments = mutableListOf<String>() }
class NativeFlags { fun cmake(action: CmakeFlags.() -> Unit) = CmakeFlags().action() }
class Cmake { var path: File? = null; var version: String? = null }
class NativeBuild { fun cmake(action: Cmake.() -> Unit) = Cmake().action() }
class DefaultConfig {
    var minSdk: Int? = null
    fun ndk(action: Ndk.() -> Unit) = Ndk().action()
    fun externalNativeBuild(action: NativeFlags.() -> Unit) = NativeFlags().action()
    fun consumerProguardFiles(vararg files: Any) = files.size
}
class Library {
    var namespace: String? = null
    var compileSdk: Int? = null
    fun defaultConfig(action: DefaultConfig.() -> Unit) = DefaultConfig().action()
    fun externalNativeBuild(action: NativeBuild.() -> Unit) = NativeBuild().action()
}
class Delivery { var deliveryType: String? = null }
class AiPack {
    var packName: String? = null
    fun dynamicDelivery(action: Delivery.() -> Unit) = Delivery().action()
}
fun aiPack(action: AiPack.() -> Unit) = AiPack().action()
fun plugins(action: Plugins.() -> Unit) = Plugins().action()
fun android(action: Library.() -> Unit) = Library().action()
fun dependencies(action: Dependencies.() -> Unit) = Dependencies().action()
fun file(path: Any) = File(path.toString())
