// An Android library module with one trained, quantized RepViT.
plugins {
    id("com.android.library") // 9 or newer: it compiles Kotlin itself
}

android {
    namespace = "edgevit.android"
    compileSdk = 36

    defaultConfig {
        minSdk = 24 // LiteRT's
        ndk {
            // LiteRT 2 is for 64-bit processors only. The app needs the same filter, or a 32-bit
            // phone installs it without this library.
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
        externalNativeBuild {
            cmake {
                // Our one library shows nothing of C++: it can carry the C++ runtime itself.
                arguments += "-DANDROID_STL=c++_static"
            }
        }
        consumerProguardFiles("consumer-rules.pro")
    }
    externalNativeBuild {
        cmake {
            path = file("src/main/cpp/CMakeLists.txt")
            version = "3.22.1"
        }
    }
}

dependencies {
    // For its libLiteRt.so alone, which is loaded by name. The version that edgevit is tested with.
    // What it depends on declares permissions of foreground services in its manifest: not needed.
    runtimeOnly("com.google.ai.edge.litert:litert:2.3.0") { isTransitive = false }
}
