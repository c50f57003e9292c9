plugins {
    id("com.android.library") version "8.7.3"
    id("org.jetbrains.kotlin.android") version "2.0.21"
}

android {
    namespace = "kfcn"
    compileSdk = 35
    defaultConfig { minSdk = 24 }
    // A compressed asset cannot be mapped into memory.
    androidResources { noCompress += "tflite" }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
}

dependencies {
    // The Interpreter: the element types of 2.x's Kotlin CompiledModel do not include uint8.
    implementation("com.google.ai.edge.litert:litert:1.4.2")
}
